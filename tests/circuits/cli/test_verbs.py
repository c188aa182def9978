"""A verb is a function and a row: it is listed, runs, and fails in one line."""

import re
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from circuits.cli.app import VERBS, command_line_of


def count(
    path: Annotated[Path, typer.Argument(help="A text file.")],
    times: Annotated[int, typer.Option(help="Times to say it.")] = 1,
) -> None:
    """Count the words of a file."""
    if not path.exists():
        raise ValueError(f"there is no file at {path}: write one first")
    print(f"{len(path.read_text().split())} words; " * times)


@pytest.fixture
def command():
    return command_line_of({**VERBS, "count": count, "files": {"count": count}})


@pytest.mark.parametrize("path", [["count"], ["files", "count"]])
def test_a_registered_verb_runs(command, tmp_path, path):
    (tmp_path / "text").write_text("one two three")
    done = CliRunner().invoke(command, [*path, str(tmp_path / "text"), "--times", "2"])
    assert done.exit_code == 0, done.output
    assert done.output == "3 words; 3 words; \n"
    assert "Count the words of a file" in CliRunner().invoke(command, [*path, "--help"]).output


def test_it_fails_in_one_line_as_the_others_do(command, fails, tmp_path):
    line = fails("count", tmp_path / "absent", command=command)
    assert line.startswith("error: there is no file at ")


def test_every_verb_is_listed_in_order_with_an_example(command):
    listed = CliRunner().invoke(command, ["--help"]).output
    places = [listed.index(f"│ {name} ") for name in (*VERBS, "count", "files")]
    assert places == sorted(places)
    for name, verb in VERBS.items():
        paths = [[name, part] for part in verb] if not callable(verb) else [[name]]
        for path in paths:
            said = CliRunner().invoke(command, [*path, "--help"]).output
            assert f"Example: circuits {' '.join(path)}" in " ".join(said.split())


def options_of(command, path=(), said=lambda option: option.opts):
    """The options of every verb, by its name, or what else `said` says of its parameters."""
    if hasattr(command, "commands"):
        for name, part in command.commands.items():
            yield from options_of(part, (*path, name), said)
    else:
        yield " ".join(path), {name for option in command.params for name in said(option)}


OPTIONS = dict(options_of(get_command(command_line_of(VERBS))))


@pytest.mark.parametrize("verb", [name for name, has in OPTIONS.items() if "--device" in has])
def test_whatever_runs_a_model_takes_the_same_options(verb):
    expected = {"--device", "--dtype", "--memory", "--threads", "--seed", "--quiet"}
    assert expected <= OPTIONS[verb]


def test_whatever_is_given_a_model_says_where_it_runs():
    given = {name for name, has in OPTIONS.items() if "--model" in has}
    # Prompts are made with the tokenizer alone.
    assert {name for name in given if "--device" not in OPTIONS[name]} == {
        "prompts make",
        "prompts list",
    }


HELP = dict(
    options_of(
        get_command(command_line_of(VERBS)),
        said=lambda option: [f"{option.name}: {option.help}"] if option.name != "help" else [],
    )
)


@pytest.mark.parametrize("verb", HELP)
def test_the_help_of_an_option_is_one_sentence_that_can_be_read_alone(verb):
    for text in HELP[verb]:
        name, _, said = text.partition(": ")
        assert re.fullmatch(r"[A-Z'].*[^,.]\.", said), f"{verb}, {text}"
        assert not re.search(r"\. [A-Z]", said), f"{verb}, {text}: two sentences"
        assert len(said.split()) > 1, f"{verb}, {name} is one word"
        leaning = ("Of ", "Or ", "And ", "Such as", "The same:", "As for", "Another", "By default")
        assert not said.startswith(leaning), f"{verb}, {text}"

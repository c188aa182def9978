"""The README's commands and Python, run as they stand."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuits.cli import app

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_every_command_runs_in_order(folder, monkeypatch):
    monkeypatch.chdir(folder)
    commands = [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("circuits ")
    ]
    assert len(commands) >= 6
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
        assert result.exit_code == 0, (command, result.output)
    assert (folder / "run" / "graph.html").stat().st_size > 100_000
    assert (folder / "compare.html").exists()
    assert (folder / "run" / "graph.pdf").exists()


def test_the_python_runs_after_them(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["graph"].number_of_nodes() > 100
    assert names["after"] < names["before"]
    assert (folder / "circuit.pdf").exists()


def test_the_files_it_links_to_are_there():
    links = re.findall(r"\]\(([^)#:]+)\)", README.read_text())
    missing = [link for link in links if not (README.parent / link).exists()]
    assert not missing

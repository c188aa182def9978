"""Texts for the features that a training set lacks, as the command writes them."""

import json

import pytest

from circuits import scope
from circuits.features.synthesis_record import (
    ALONE,
    ASKED,
    SynthesisConfig,
)
from circuits.scope.synthesise import FIGURES, KEPT, RECORD, WRITTEN
from hooked_qwen.bundled import language
from tests.circuits.conftest import call
from tests.circuits.features.test_synthesis import write


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Facts and people; the training set has one kind of each."""
    folder = tmp_path_factory.mktemp("texts")

    def rows(seed, *tasks):
        return [
            {"text": f"{pair.clean}{pair.answer[0]}.", "label": label}
            for task, label in tasks
            for pair in language.pairs(task, 5, split="train", seed=seed)
        ]

    few = ("capital_of", "fact"), ("pronoun", "people")
    more = *few, ("two_step", "fact"), ("profession", "people")
    parts = {"training": rows(0, *few), "target": rows(1, *more), "test": rows(2, *more)}
    return {name: write(folder / f"{name}.jsonl", part) for name, part in parts.items()}


def test_the_model_itself_writes_through_the_command(files, tmp_path, fails):
    out = tmp_path / "out"
    asked = ["synthesise", "bundled", "--out", out]
    asked += [x for name, file in files.items() for x in (f"--{name}", file)]
    few = ["--features", 3, "--tries", 2, "--seeds", 1, "--tokens", 16, "--separator", " "]
    done = call(*asked, *few)
    assert done.exit_code == 0, done.output
    assert "random target" in done.output
    (alone, *_) = [line for line in done.output.splitlines() if "training alone" in line][1:]
    assert alone.split()[-1] == alone.split()[-3] == "–"
    record = json.loads((out / RECORD).read_text())
    assert record["writing"]["style"] == "continuation"
    assert len(record["asked"]) == 3
    kept = [json.loads(line) for line in (out / KEPT).read_text().splitlines()]
    assert len(kept) == record["rows"][ASKED]["texts"]
    assert all(one["asked"] in one["fired"] and one["label"] in ("fact", "people") for one in kept)
    every = [json.loads(line) for line in (out / WRITTEN).read_text().splitlines()]
    assert len(every) > len(kept)
    assert all((out / name).stat().st_size > 1000 for name in FIGURES)
    assert "made from something else" in fails(*asked)
    assert "needs --endpoint, its address, and --name" in fails(*asked, "--name", "x")
    assert "--tries is 0" in fails(*asked, "--tries", 0)


def test_any_function_writes_from_python(files):
    train = files["training"]
    record = scope.synthesise(
        "bundled",
        training=train,
        target=files["target"],
        generator=lambda prompt: "Anna worked as a doctor for many years.",
        config=SynthesisConfig(features=2, tries=1, seeds=1),
    )
    assert record["writing"]["style"] == "instruction"
    assert record["rows"][ASKED]["texts"] <= 1
    assert record["rows"][ALONE]["scores"] is None


def test_a_folder_of_something_else_stays(files, tmp_path):
    given = {"training": files["training"], "target": files["target"]}
    (tmp_path / RECORD).write_text("{}")
    with pytest.raises(ValueError, match="is there already, made from something else"):
        scope.synthesise("bundled", **given, out=tmp_path)
    with pytest.raises(ValueError, match="is a file: give a folder"):
        scope.synthesise("bundled", **given, out=tmp_path / RECORD)

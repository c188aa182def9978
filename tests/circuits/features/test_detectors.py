"""Detectors as the commands make, judge and run them."""

import json
import random

import pytest
from typer.testing import CliRunner

from circuits import scope
from circuits.cli.app import app

NOUNS = ("surgeon", "boy", "painter", "teacher", "dog", "pilot", "farmer", "nurse")
VERBS = ("sit", "run", "laugh", "sleep", "wait", "sing")


def texts(n, seed):
    draw = random.Random(seed)
    for i in range(n):
        plural = i % 2 == 0
        noun, verb = draw.choice(NOUNS), draw.choice(VERBS)
        text = f"The {noun}s {verb}." if plural else f"The {noun} {verb}s."
        yield {"text": text, "label": "plural" if plural else "singular"}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def call(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    labelled = write(folder / "texts.jsonl", texts(80, 0))
    record = scope.classify(
        "bundled", labelled=labelled, positive="plural", out=folder / "plural.json"
    )
    return folder, record


def test_every_baseline_stands_beside_the_features(made):
    folder, record = made
    names = [one["name"] for one in record["methods"]]
    assert names == [
        "features",
        "untrained dictionaries",
        "linear probe",
        "difference of means",
        "words",
    ]
    assert record["texts"] == {"train": 40, "held_out": 16, "test": 24}
    assert record["methods"][0]["auroc"] > 0.9
    assert list(record["by_texts"]) == ["1", "2", "3", "5", "10", "14", "20"]
    # Of 28 texts of each kind that are learned from.
    assert record["by_share"] == {"1": 1, "5": 1, "10": 3, "50": 14, "100": 28}
    assert list(record["by_features"]) == ["1", "2", "5", "10", "20", "50"]
    at_most = [methods[0]["auroc"] for methods in record["by_features"].values()]
    assert record["methods"][0]["auroc"] in at_most
    assert all(len(methods) == 5 for methods in record["by_texts"].values())
    assert json.loads((folder / "plural.json").read_text())["features"] == record["features"]


def test_a_detector_says_of_new_texts_what_it_was_judged_to(made, tmp_path):
    folder, record = made
    new = list(texts(30, 1))
    file = write(tmp_path / "new.jsonl", new)
    found = list(scope.detect(folder / "plural.json", "bundled", text=[str(file)]))
    right = [
        one["positive"] == (row["label"] == "plural") for one, row in zip(found, new, strict=True)
    ]
    assert sum(right) / len(right) > 0.85
    known = {one["feature"] for one in record["features"]}
    for one in found:
        assert one["positive"] == (one["score"] > record["threshold"])
        assert one["feature"] in known or one["score"] == 0
    # Texts one by one have the scores that they have together.
    (alone,) = scope.detect(
        folder / "plural.json", "bundled", text=[str(write(tmp_path / "one.jsonl", new[:1]))]
    )
    assert alone["score"] == pytest.approx(found[0]["score"], rel=1e-4)


def test_the_commands_write_what_they_show(made, tmp_path):
    folder, _ = made
    labelled = folder / "texts.jsonl"
    out = tmp_path / "detector.json"
    arguments = ["--labelled", labelled, "--positive", "plural", "--out", out]
    done = call("classify", "bundled", *arguments, "--texts", 6)
    assert done.exit_code == 0, done.output
    assert "untrained dictionaries" in done.output
    assert json.loads(out.read_text())["texts"]["train"] == 8
    again = call("classify", "bundled", *arguments)
    assert "made from something else" in " ".join(str(again.exception).split())
    found = tmp_path / "found.jsonl"
    done = call("detect", out, "bundled", "--text", labelled, "--out", found)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    assert len(lines) == 80
    assert f"{sum(one['positive'] for one in lines)} of 80 texts are positive" in done.output


def test_a_detector_of_several_dictionaries_is_run(tmp_path):
    file = write(tmp_path / "texts.jsonl", texts(40, 2))
    out = tmp_path / "several.json"
    record = scope.classify("bundled", labelled=file, positive="plural", across="several", out=out)
    record["features"] = [
        {"feature": name, "label": "", "usual": 1.0} for name in ("mlp_out.0/3", "resid_post.2/5")
    ]
    out.write_text(json.dumps(record))
    found = list(scope.detect(out, "bundled", text=[str(file)]))
    assert len(found) == 40
    assert {one["feature"] for one in found} <= {None, "mlp_out.0/3", "resid_post.2/5"}


def test_other_texts_can_be_judged_on(tmp_path):
    own, other = (write(tmp_path / f"{i}.jsonl", texts(24, i)) for i in (3, 4))
    record = scope.classify("bundled", labelled=own, positive="plural", test=other)
    assert record["texts"]["test"] == 24
    assert record["texts"]["train"] + record["texts"]["held_out"] == 24


def test_what_cannot_be_made_or_run_is_said(made, tmp_path):
    folder, _ = made
    with pytest.raises(ValueError, match="no text is labelled 'x': the labels are plural, "):
        scope.classify("bundled", labelled=folder / "texts.jsonl", positive="x")
    no = tmp_path / "no.json"
    no.write_text('{"schema": "other"}')
    with pytest.raises(ValueError, match="is no detector: its schema is 'other'"):
        next(scope.detect(no, "bundled", text=["bundled"]))
    record = json.loads((folder / "plural.json").read_text())
    record["made_from"]["dictionaries"] = "0" * 16
    no.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="made with other dictionaries"):
        next(scope.detect(no, "bundled", text=["bundled"]))


def test_a_stream_that_is_cut_off_leaves_no_file(made, tmp_path):
    folder, _ = made
    out = tmp_path / "found.jsonl"
    texts_there = [str(folder / "texts.jsonl")]
    stream = scope.detect(folder / "plural.json", "bundled", text=texts_there, out=out)
    next(stream)
    stream.close()
    assert list(tmp_path.iterdir()) == []


def test_texts_of_one_kind_cannot_be_judged_on(made, tmp_path):
    folder, _ = made
    alike = write(tmp_path / "alike.jsonl", list(texts(8, 5))[::2])
    with pytest.raises(ValueError, match="alike.jsonl has texts of one kind only"):
        scope.classify("bundled", labelled=folder / "texts.jsonl", positive="plural", test=alike)

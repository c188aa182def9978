"""Detectors as the commands make, judge and run them."""

import itertools
import json
import random

import pytest
from sklearn.metrics import f1_score
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
    for one in record["methods"]:
        for measure in ("f1", "auroc", "tpr"):
            low, high = one[f"{measure}_interval"]
            assert low <= one[measure] <= high
    for methods in record["by_texts"].values():
        assert [len(one["draws"]) for one in methods] == [5] * 5
    words = record["by_texts"]["5"][4]
    assert len({(draw["choice"], draw["threshold"]) for draw in words["draws"]}) > 1
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
    assert "of fewer than a hundred negative texts none passes" in " ".join(done.output.split())
    said = "so many texts of each kind, means over 5 draws of fewer than all; shares of all are 1"
    assert said in " ".join(done.output.split())
    assert json.loads(out.read_text())["texts"]["train"] == 8
    again = call("classify", "bundled", *arguments)
    assert "made from something else" in " ".join(str(again.exception).split())
    found = tmp_path / "found.jsonl"
    done = call("detect", out, "bundled", "--text", labelled, "--out", found)
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    assert len(lines) == 80
    assert f"{sum(one['positive'] for one in lines)} of 80 texts are positive" in done.output
    asked = ("detect", out, "bundled", "--text", labelled, "--out", found)
    assert "is there already: choose another place" in str(call(*asked).exception)
    assert len(found.read_text().splitlines()) == 80
    assert call(*asked, "--force").exit_code == 0


def test_texts_come_from_a_file_from_standard_input_or_from_any_iterable(made):
    folder, _ = made
    detector, file = folder / "plural.json", folder / "texts.jsonl"
    from_file = list(scope.detect(detector, "bundled", text=[str(file)]))
    given = [row["text"] for row in texts(80, 0)]
    taken = []

    def endless():
        for text in itertools.cycle(given):
            taken.append(text)
            yield text

    # A stream without an end gives results as it is read, some texts at a time.
    stream = scope.detect(detector, "bundled", stream=endless())
    first = list(itertools.islice(stream, 10))
    assert len(taken) == 64
    assert first == from_file[:10]
    done = CliRunner().invoke(
        app, ["detect", str(detector), "bundled", "--text", "-"], input=file.read_text()
    )
    assert done.exit_code == 0, done.output
    says = sum(one["positive"] for one in from_file)
    assert f"{says} of 80 texts are positive" in done.output
    assert [line for line in done.output.splitlines() if given[0] in line]
    for both in ({"text": [str(file)], "stream": given}, {}):
        with pytest.raises(ValueError, match="either sources, `text`, or a `stream` of texts"):
            next(scope.detect(detector, "bundled", **both))
    with pytest.raises(ValueError, match="no text in the stream"):
        next(scope.detect(detector, "bundled", stream=[]))


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
    empty = write(tmp_path / "empty.jsonl", [])
    with pytest.raises(ValueError, match="empty.jsonl holds no texts"):
        scope.classify("bundled", labelled=empty, positive="x")
    out = tmp_path / "found.jsonl"
    empty = tmp_path / "empty.txt"
    empty.touch()
    with pytest.raises(ValueError, match="no text in .*empty.txt"):
        next(scope.detect(folder / "plural.json", "bundled", text=[str(empty)], out=out))
    assert not out.exists()
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


def test_files_with_names_are_judged_on_beside_the_own_part(made, tmp_path):
    folder, alone = made
    other = write(tmp_path / "other.jsonl", texts(24, 6))
    out = tmp_path / "both.json"
    arguments = ["--labelled", folder / "texts.jsonl", "--positive", "plural", "--out", out]
    done = call("classify", "bundled", *arguments, "--test", f"new={other}")
    assert done.exit_code == 0, done.output
    assert "judged on" in done.output
    record = json.loads(out.read_text())
    # Other texts change nothing of what is learned, nor of the own part's figures.
    assert record["features"] == alone["features"]
    assert record["methods"] == alone["methods"]
    new = record["tests"]["new"]
    assert (new["texts"], new["positives"]) == (24, 12)
    assert [m["threshold"] for m in new["methods"]] == [m["threshold"] for m in alone["methods"]]
    assert list(new["by_texts"]) == list(alone["by_texts"])
    assert all(one["auroc_interval"] for one in new["methods"])
    # What the detector says of these texts when it is run is what the figures are of.
    found = list(scope.detect(out, "bundled", text=[str(other)]))
    says = [one["positive"] for one in found]
    is_plural = [row["label"] == "plural" for row in texts(24, 6)]
    assert new["methods"][0]["f1"] == pytest.approx(f1_score(is_plural, says), abs=1e-6)


def test_two_tests_of_one_name_are_refused(made, tmp_path):
    folder, _ = made
    file = folder / "texts.jsonl"
    arguments = ["--labelled", file, "--positive", "plural", "--test", file, "--test", file]
    done = call("classify", "bundled", *arguments)
    assert "two tests are called 'texts'" in str(done.exception)
    assert "say --test NAME=FILE" in str(done.exception)


def test_features_have_cards_of_the_texts_that_they_were_chosen_on(made):
    folder, record = made
    own = {row["text"]: row["label"] for row in map(json.loads, (folder / "texts.jsonl").open())}
    for one in record["features"]:
        card = one["card"]
        assert len(card["promoted"]) == len(card["suppressed"]) == 8
        assert 0 <= card["on"]["negative"] < card["on"]["positive"] <= 1
        strengths = [example["activation"] for example in card["examples"]]
        assert strengths == sorted(strengths, reverse=True)
        for example in card["examples"]:
            assert "<<" in example["text"]
            plain = example["text"].replace("<<", "").replace(">>", "")
            assert example["positive"] == (own[plain] == "plural")
        assert len(json.dumps(card)) < 3000
        # The strongest text is where `detect` finds the same activation.
        strongest = card["examples"][0]
        assert strongest["activation"] >= one["usual"] * 0.9


def test_a_file_without_cards_is_read(made, tmp_path):
    folder, record = made
    bare = [{k: v for k, v in one.items() if k != "card"} for one in record["features"]]
    older = {k: v for k, v in record.items() if k != "tests"} | {"features": bare}
    path = tmp_path / "older.json"
    path.write_text(json.dumps(older))
    text = [str(folder / "texts.jsonl")]
    same = scope.detect(folder / "plural.json", "bundled", text=text)
    assert list(scope.detect(path, "bundled", text=text)) == list(same)


def test_figures_stand_beside_the_file(made):
    folder, record = made
    assert (folder / "plural.pdf").read_bytes().startswith(b"%PDF")
    drawn = (folder / "plural.svg").read_text()
    for word in (
        "F1",
        "AUROC",
        "TPR at 1% FPR",
        "bands: 95% intervals",
        "features, at most",
        *(m["name"] for m in record["methods"]),
    ):
        assert word in drawn

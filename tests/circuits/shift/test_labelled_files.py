"""Files of labelled texts: every layout, the split, and what is refused in one line."""

import csv
import gzip
import io
import json
from collections import Counter
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from circuits.shift.texts import ShiftData, shift_data

SETS = ("ambiguous", "balanced", "balanced_train", "spurious_only")


def rows(counts=((13, 1, 20), (13, 0, 8), (21, 1, 8), (21, 0, 20), (25, 0, 5), (25, 1, 3))):
    """Rows of the published layout: by default nurses, professors and surgeons."""
    return [
        {"hard_text": f"Text {i} of {job} and {sex} .", "profession": job, "gender": sex}
        for job, sex, count in counts
        for i in range(count)
    ]


def jsonl(records, path: Path) -> Path:
    lines = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(lines) if path.suffix == ".gz" else lines)
    return path


def as_csv(records, path: Path) -> Path:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    path.write_text(out.getvalue())
    return path


def as_list(records, path: Path) -> Path:
    path.write_text(json.dumps(records))
    return path


def as_parquet(records, path: Path) -> Path:
    pd.DataFrame(records).to_parquet(path)
    return path


def texts(data: ShiftData, part: str) -> set[str]:
    return {x.text for x in getattr(data, part)}


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (jsonl, "bios.jsonl"),
        (jsonl, "bios.jsonl.gz"),
        (as_list, "bios.json"),
        (as_csv, "bios.csv"),
        (as_parquet, "bios.parquet"),
    ],
)
def test_the_published_layout_is_read_from_every_format(tmp_path, write, name):
    data = shift_data(write(rows(), tmp_path / name))
    assert data.name == name
    assert (data.label, data.spurious) == ("profession", "gender")
    assert data.labels == ("nurse", "professor")
    assert data.spurious_labels == ("female", "male")
    same = shift_data(jsonl(rows(), tmp_path / "same.jsonl"))
    assert all(getattr(data, part) == getattr(same, part) for part in SETS)


def test_groups_are_of_one_size_and_no_text_is_in_two_sets(tmp_path):
    data = shift_data(jsonl(rows(), tmp_path / "bios.jsonl"), n=16)
    crossed = dict.fromkeys(product(range(2), repeat=2), 4)
    for part in ("balanced", "balanced_train"):
        assert Counter((x.label, x.spurious) for x in getattr(data, part)) == crossed
    assert Counter((x.label, x.spurious) for x in data.ambiguous) == {(0, 0): 8, (1, 1): 8}
    assert Counter((x.label, x.spurious) for x in data.spurious_only) == {(0, 0): 3, (0, 1): 3}
    every = [x.text for part in SETS for x in getattr(data, part)]
    assert len(set(every)) == len(every)


def test_labels_are_those_of_the_rows(tmp_path):
    data = shift_data(jsonl(rows(), tmp_path / "bios.jsonl"))
    jobs, sexes = {"13": 0, "21": 1}, {"1": 0, "0": 1}
    for part in SETS[:3]:
        for x in getattr(data, part):
            _, _, _, job, _, sex, _ = x.text.split()
            assert (x.label, x.spurious) == (jobs[job], sexes[sex])
    assert all(" of 25 and " in text for text in texts(data, "spurious_only"))


def test_the_seed_decides_the_split_and_nothing_else(tmp_path):
    path = jsonl(rows(), tmp_path / "bios.jsonl")
    first, again, other = (shift_data(path, n=8, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert texts(first, "balanced") != texts(other, "balanced")
    assert first.labels == other.labels


def test_classes_chosen_for_the_caller_are_told_and_others_may_be_asked_for(tmp_path):
    path = jsonl(rows(), tmp_path / "bios.jsonl")
    assert "the two most frequent of 3 classes: nurse, professor" in shift_data(path).notes
    asked = shift_data(path, classes=("surgeon", "nurse"))
    assert asked.labels == ("surgeon", "nurse")
    # Surgeons are men more often than nurses are, so that ambiguous texts are the common ones.
    assert asked.spurious_labels == ("male", "female")
    assert len(asked.balanced) == 4


def test_any_fields_will_do_and_names_of_genders_bring_their_words(tmp_path):
    records = [
        {"body": f"text {i} {kind} {sex}", "section": kind, "author": sex}
        for kind, sex in product(("sport", "politics"), ("m", "f"))
        for i in range(4)
    ]
    path = jsonl(records, tmp_path / "news.jsonl")
    data = shift_data(path, label="section", spurious="author")
    assert set(data.labels) == {"sport", "politics"}
    assert not data.spurious_only
    assert "spurious_only is empty" in " ".join(data.notes)
    assert "she" in data.words[data.cues.index("pronouns")]
    for record in records:
        record["author"] = {"m": "old", "f": "new"}[record["author"]]
    plain = shift_data(jsonl(records, path), text="body", label="section", spurious="author")
    assert plain.words == plain.cues == ()


def test_empty_fields_and_texts_seen_before_are_left_out_and_told(tmp_path):
    records = [*rows(), rows()[0], {"hard_text": None, "profession": 1, "gender": 0}]
    data = shift_data(jsonl(records, tmp_path / "bios.jsonl"))
    assert "left out: 1 rows whose text came before" in data.notes
    assert "left out: 1 rows with an empty field" in data.notes
    table = pd.DataFrame(records)
    table.loc[0, "gender"] = None  # whole numbers become floats, what is missing NaN
    table.to_parquet(tmp_path / "bios.parquet")
    read = shift_data(tmp_path / "bios.parquet")
    assert read.labels == ("nurse", "professor") or read.labels == ("professor", "nurse")
    assert "left out: 2 rows with an empty field" in read.notes


FIELDS = {"text": "a", "label": "x", "spurious": "s"}


@pytest.mark.parametrize(
    ("records", "arguments", "message"),
    [
        ([{"words": "a", "label": "x", "spurious": "s"}], {}, "line 1: no field 'hard_text' or.*"
         "the fields are 'words', 'label', 'spurious': say which one is text"),
        ([FIELDS], {"label": "job"}, "line 1: no field 'job'; the fields are 'text', 'label'"),
        ([FIELDS], {"spurious": "label"}, "three fields, not text, label, label"),
        ([FIELDS, {"text": "b", "label": "x"}], {}, "line 2: no field 'spurious', which the first"),
        ([{**FIELDS, "text": 3}], {}, "line 1: the field 'text' holds no text but 3"),
        ([{**FIELDS, "label": ["x"]}], {}, "line 1: the field 'label' holds no class but"),
        ([{**FIELDS, "text": ""}], {}, "holds no labelled texts"),
        ([FIELDS], {}, "'label' holds one class, and two are told apart: x"),
        (rows(((13, 1, 9), (21, 1, 9))), {}, "'gender' holds 1 classes, .* two: female"),
        (rows(((13, 1, 9), (21, 0, 9), (21, 1, 9))), {}, "4 texts .* nurse male 0"),
        (rows(), {"classes": ("nurse", "poet")}, "two classes of 'profession': nurse \\(28\\)"),
        (rows(), {"n": 400}, "400 texts a set were asked for; .* give 16 at most"),
        (rows(), {"n": 6}, "6 texts cannot be four groups of one size"),
        (rows(((28, 1, 1),)), {}, "no profession has the number 28: .* 0 to 27"),
        ([{**FIELDS, "text": str(i), "spurious": s, "label": s} for i, s in enumerate("abc")], {},
         "'spurious' holds 3 classes, .* two: a, b, c; leave the rows"),
    ],
)  # fmt: skip
def test_what_a_file_lacks_is_said_in_one_line(tmp_path, records, arguments, message):
    with pytest.raises(ValueError, match=message) as refused:
        shift_data(jsonl(records, tmp_path / "texts.jsonl"), **arguments)
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path):
    for name, content, message in (
        ("bad.jsonl", b"{", "line 1: not JSON"),
        ("bad.csv", b"text,label\na,b,c", "more cells than the first line"),
        ("bad.parquet", b"PAR0", "cannot read .* as Parquet"),
        ("bad.jsonl.gz", b"no gzip", "cannot read .*bad.jsonl.gz"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=message) as refused:
            shift_data(tmp_path / name)
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="there are no labelled texts at"):
        shift_data(tmp_path)

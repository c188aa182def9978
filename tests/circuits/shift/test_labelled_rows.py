"""Rows of a file of labelled texts: fields by their usual names, published numbers."""

import json

import pytest

from circuits.shift.labelled_rows import LabelledRow, read_rows


def rows_of(tmp_path, *records, text=None, label=None, spurious=None):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_rows(path, text=text, label=label, spurious=spurious)


def test_fields_are_found_by_their_usual_names_the_first_that_is_there(tmp_path):
    record = {"body": "x", "text": "a", "title": "t", "p": "nurse", "sex": "f"}
    found = rows_of(tmp_path, record)
    assert (found.label, found.spurious) == ("p", "sex")
    assert found.rows == [LabelledRow("a", "nurse", "f")]
    named = rows_of(tmp_path, record, text="body", label="title", spurious="p")
    assert named.rows == [LabelledRow("x", "t", "nurse")]


def test_published_numbers_are_names_in_the_published_layout_alone(tmp_path):
    record = {"hard_text": "a", "profession": 13, "gender": "1"}
    assert rows_of(tmp_path, record).rows == [LabelledRow("a", "nurse", "female")]
    own = {"text": "a", "profession": 13.0, "gender": 1}
    assert rows_of(tmp_path, own).rows == [LabelledRow("a", "13", "1")]


def test_what_was_left_out_is_counted(tmp_path):
    kept = {"text": "a", "label": "x", "spurious": "s"}
    empty = [{**kept, "text": " "}, {**kept, "text": "b", "label": None}]
    found = rows_of(tmp_path, kept, *empty, {**kept, "label": "y"})
    assert found.rows == [LabelledRow("a", "x", "s")]
    assert found.notes == [
        "left out: 2 rows with an empty field",
        "left out: 1 rows whose text came before",
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"text": "a", "label": "x"}], "line 1: no field 'gender' or .*say which one is spurious"),
        ([{"text": "", "label": "x", "spurious": "s"}], "texts.jsonl holds no labelled texts"),
        ([{"text": "a", "label": {}, "spurious": "s"}], "the field 'label' holds no class but {}"),
    ],
)
def test_what_is_wrong_with_a_row_is_told_with_its_line(tmp_path, records, message):
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path, *records)


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(ValueError, match="there are no labelled texts at .*: expected a file"):
        read_rows(tmp_path, text=None, label=None, spurious=None)

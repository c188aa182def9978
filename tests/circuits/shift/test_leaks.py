"""What single words tell: planted words exactly, and the cues of the project's own texts."""

from itertools import product

import pytest

from circuits.shift.labelled import LabelledText, ShiftData
from circuits.shift.leaks import leaks
from circuits.shift.texts import shift_data


def planted() -> ShiftData:
    """Label and spurious class each in one word; a third word is everywhere."""
    balanced = tuple(
        LabelledText(f"all {('cat', 'dog')[i]} {('red', 'Blue')[j]}", i, j)
        for i, j in [*product(range(2), repeat=2)] * 6
    )
    return ShiftData(
        name="planted",
        label="animal",
        labels=("cat", "dog"),
        spurious="colour",
        spurious_labels=("red", "blue"),
        ambiguous=tuple(x for x in balanced if x.label == x.spurious),
        balanced=balanced,
        balanced_train=balanced,
        spurious_only=(),
        words=(("red", "Blue"), ("all",)),
        cues=("colours", "others"),
    )


def test_planted_words_tell_all_and_without_them_nothing():
    table = leaks(planted())
    assert (table.loc["all words", ["label", "spurious", "worst"]] == 1).all()
    assert table.loc["without colours", "label"] == 1
    assert table.loc["without colours", "spurious"] == 0.5
    assert table.loc["colours alone", "label"] == 0.5
    assert table.loc["colours alone", "spurious"] == 1
    assert table.loc["without others", "spurious"] == 1
    assert (table.loc[["colours alone", "others alone"], "texts"] == 1).all()
    assert table.loc["without all cues", "spurious"] == 0.5


def test_trained_where_both_agree_it_cannot_tell_which_of_them_to_read():
    table = leaks(planted(), "ambiguous")
    assert table.loc["all words", "label"] < 1
    assert table.loc["all words", "worst"] < 1
    assert table.loc["without colours", "worst"] == 1


@pytest.mark.parametrize(
    ("name", "model", "strongest"),
    [
        ("biographies", "bundled", "pronouns"),
        ("biographies", "Qwen/x", "pronouns"),
        ("registers", "bundled", "regions"),
        ("registers", "Qwen/x", "wording"),
    ],
)
def test_deleting_one_cue_leaves_the_spurious_class_and_cues_tell_nothing_of_the_label(
    name, model, strongest
):
    data = shift_data(name, n=200, model=model)
    table = leaks(data)
    assert table.loc["all words", "label low"] > 0.8
    assert table.loc[f"without {strongest}", "spurious low"] > 0.6
    alone = [read for read in table.index if read.endswith("alone")]
    assert (table.loc[alone, "label"] - 0.5).abs().max() < 0.1
    assert table.loc["without all cues", "spurious"] < 0.65

"""Labelled texts: words that are deleted and words that are kept."""

import pytest

from circuits.shift.labelled import ShiftData, only_words, without_words


@pytest.mark.parametrize(
    ("words", "left", "alone"),
    [
        (("she", "don't"), "saw a rose, and Rose Sheen said: know!", "She she don't"),
        (("Rose",), "She saw a rose, and Sheen said: she don't know!", "Rose"),
        (("rose",), "She saw a, and Sheen said: she don't know!", "rose Rose"),
        (("!",), "She saw a rose, and Rose Sheen said: she don't know.", "!"),
        (("She saw a rose",), "and Rose Sheen said: she don't know!", "She saw a rose"),
        ((), "She saw a rose, and Rose Sheen said: she don't know!", ""),
    ],
)
def test_words_are_deleted_whole_in_either_case_and_names_as_they_are_written(words, left, alone):
    text = "She saw a rose, and Rose Sheen said: she don't know!"
    assert without_words(text, words) == left
    assert only_words(text, words) == alone


def test_marks_that_gaps_leave_behind_go_too():
    assert without_words("Sir, he left. Then he said: no!", ["sir", "he"]) == "left. Then said: no!"
    assert without_words("We met, Ann.", ["Ann"]) == "We met."


def test_every_kind_of_words_has_a_name():
    texts = {"ambiguous": (), "balanced": (), "balanced_train": (), "spurious_only": ()}
    names = {"name": "x", "label": "l", "labels": ("a", "b"), "spurious": "s"}
    with pytest.raises(ValueError, match="2 kinds of words need as many names: .'pronouns',."):
        ShiftData(
            **names,
            **texts,
            spurious_labels=("c", "d"),
            words=(("she",), ("Ann",)),
            cues=("pronouns",),
        )

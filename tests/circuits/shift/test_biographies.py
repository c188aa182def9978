"""Biographies of two professions, in English or in the bundled model's words."""

import pytest

from circuits.shift.biographies import biographies
from circuits.shift.labelled import only_words
from circuits.shift.people import CUES


@pytest.mark.parametrize("bundled", [True, False])
def test_two_professions_and_two_genders_with_words_for_every_cue(bundled):
    data = biographies(classes=None, n=8, seed=0, bundled=bundled)
    assert (data.label, data.spurious) == ("profession", "gender")
    assert data.spurious_labels == ("female", "male")
    assert data.cues == CUES
    assert all(data.words)
    assert data == biographies(classes=data.labels, n=8, seed=0, bundled=bundled)


def test_pronouns_are_those_of_the_gender():
    data = biographies(classes=None, n=80, seed=1, bundled=False)
    of = [[x.text for x in data.ambiguous if x.spurious == gender] for gender in (0, 1)]
    assert not any(only_words(text, ["he", "him", "his"]) for text in of[0])
    assert not any(only_words(text, ["she", "her"]) for text in of[1])
    assert any(only_words(text, ["she"]) for text in of[0])


def test_professions_are_two_that_are_known():
    with pytest.raises(ValueError, match="write two of the professions"):
        biographies(classes=("nurse", "sorcerer"), n=8, seed=0, bundled=True)

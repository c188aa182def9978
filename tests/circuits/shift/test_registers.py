"""Messages on a topic, formal or casual."""

import random

import pytest

from circuits.shift.labelled import only_words
from circuits.shift.registers import CUE_WORDS, message, registers


def test_a_message_shows_a_cue_of_its_register_and_no_opening_of_the_other():
    rng = random.Random(2)
    shown = {kind: words for kind, words in CUE_WORDS.items() if kind != "punctuation"}
    for formality in (0, 1) * 30:
        text = message(rng, "music", formality, "train")
        assert any(only_words(text, words[formality]) for words in shown.values()), text
        for kind in ("openings", "closings", "address"):
            assert not only_words(text, CUE_WORDS[kind][1 - formality]), text


def test_topics_are_the_label_and_formality_is_the_spurious_signal():
    data = registers(classes=("music", "money"), n=8, seed=0, bundled=False)
    assert (data.label, data.labels) == ("topic", ("music", "money"))
    assert data.spurious_labels == ("formal", "casual")
    assert data.cues == tuple(CUE_WORDS)
    assert data == registers(classes=("music", "money"), n=8, seed=0, bundled=False)


def test_the_bundled_model_has_regions_in_place_of_registers():
    assert registers(classes=None, n=8, seed=0, bundled=True).spurious == "region"


def test_topics_are_two_that_are_known():
    with pytest.raises(ValueError, match="write two of the topics"):
        registers(classes=("music", "sorcery"), n=8, seed=0, bundled=False)

"""Professions in two regions: towns of one half, words of one region, a cue in every text."""

import random
from itertools import product
from math import prod

import pytest

from circuits.shift.generate import pieces
from circuits.shift.labelled import only_words
from circuits.shift.regions import BLANKS, CUES, OTHER, PAIR, SHARES, life, regions
from hooked_qwen.bundled.atlas import REGIONS

HALVES = ("train", "test")
TOWNS = [[town.name for town in region.towns] for region in PAIR]
OWN = [(region.name, region.capital, region.crop, region.colour) for region in PAIR]


@pytest.fixture(scope="module")
def data():
    return regions(classes=None, n=80, seed=3)


@pytest.fixture(scope="module")
def lives():
    """Texts of each half and region."""
    rng = random.Random(5)
    return {
        (half, region): [life(rng, "sailor", region, half) for _ in range(150)]
        for half, region in product(HALVES, range(2))
    }


def test_a_text_holds_words_of_its_own_region_and_none_of_the_other(lives):
    for (_, region), texts in lives.items():
        own = (*OWN[region], *TOWNS[region])
        other = (*OWN[1 - region], *TOWNS[1 - region])
        for text in texts:
            assert only_words(text, own), text
            assert not only_words(text, other), text


def test_a_town_is_in_the_texts_of_one_half_alone(lives):
    seen = {
        half: {
            town for r in range(2) for text in lives[half, r] for town in TOWNS[r] if town in text
        }
        for half in HALVES
    }
    assert not seen["train"] & seen["test"]
    assert seen["train"] | seen["test"] == {*TOWNS[0], *TOWNS[1]}


def test_a_kind_of_cue_shows_in_its_share_of_the_texts(lives, data):
    """Texts that would have none are drawn again."""
    every = [text for texts in lives.values() for text in texts]
    some = 1 - prod(1 - share for share in SHARES.values())
    for kind, words in zip(data.cues, data.words, strict=True):
        found = sum(bool(only_words(text, words)) for text in every) / len(every)
        assert found == pytest.approx(SHARES[kind] / some, abs=0.07), kind


def test_towns_that_fill_blanks_are_of_no_region_of_the_pair(lives):
    elsewhere = {town.name for region in REGIONS[2:] for town in region.towns}
    assert set(BLANKS["town"]) <= elsewhere
    assert not elsewhere & {*TOWNS[0], *TOWNS[1]}
    assert any(town in text for town in BLANKS["town"] for text in lives["test", 0])
    assert OTHER
    assert not any("{town}" in pattern for pattern in OTHER)


def test_the_sets_know_their_words_and_the_labels_say_what_they_are(data):
    assert (data.label, data.spurious) == ("profession", "region")
    assert data.labels == ("sailor", "builder")
    assert data.spurious_labels == tuple(region.name for region in PAIR)
    words = dict(zip(data.cues, data.words, strict=True))
    assert set(words) == set(CUES)
    assert set(words["towns"]) == {*TOWNS[0], *TOWNS[1]}
    names, capitals, crops, colours = zip(*OWN, strict=True)
    assert (words["regions"], words["capitals"]) == (names, capitals)
    assert (words["crops"], words["flags"]) == (crops, colours)
    work = ("sea", "ship", "boat", "harbour", " port", "sail", "dock", "island", "lighthouse")
    for one in (*data.ambiguous, *data.balanced, *data.balanced_train):
        assert any(word in one.text for word in work) == (one.label == 0), one.text
        assert 25 <= pieces(one.text) <= 45
    of_others = " ".join(one.text for one in data.spurious_only)
    for word in ("ship", "boat", "harbour", "sailor", "builder", "brick"):
        assert word not in of_others


def test_classes_are_two_of_those_that_are_known():
    data = regions(classes=("baker", "farmer"), n=8, seed=0)
    assert data.labels == ("baker", "farmer")
    assert data != regions(classes=("baker", "farmer"), n=8, seed=1)
    with pytest.raises(
        ValueError, match="'dentist', 'sailor': write two of the professions nurse, "
    ):
        regions(classes=("dentist", "sailor"), n=8, seed=0)

"""The four sets of texts: groups, no text twice, the same texts for the same seed."""

from collections import Counter
from itertools import product

import pytest

from circuits.shift.generate import pieces
from circuits.shift.texts import ShiftData, shift_data

SETS = ("ambiguous", "balanced", "balanced_train", "spurious_only")
ENGLISH = "Qwen/Qwen3-0.6B"


@pytest.fixture(scope="module", params=product(("biographies",), ("bundled", ENGLISH)), ids=str)
def data(request: pytest.FixtureRequest) -> ShiftData:
    name, model = request.param
    return shift_data(name, model=model)


def groups(data: ShiftData, part: str) -> Counter[tuple[int, int]]:
    return Counter((x.label, x.spurious) for x in getattr(data, part))


def test_groups_are_of_one_size(data: ShiftData):
    crossed = dict.fromkeys(product(range(2), repeat=2), 100)
    assert groups(data, "ambiguous") == {(0, 0): 200, (1, 1): 200}
    assert groups(data, "balanced") == groups(data, "balanced_train") == crossed
    assert groups(data, "spurious_only") == {(0, 0): 200, (0, 1): 200}


def test_no_text_is_in_two_sets_or_twice_in_one(data: ShiftData):
    texts = [x.text for part in SETS for x in getattr(data, part)]
    assert len(set(texts)) == len(texts) == 1600


def test_texts_have_25_to_45_words_and_marks(data: ShiftData):
    assert all(25 <= pieces(x.text) <= 45 for part in SETS for x in getattr(data, part))


def test_the_same_seed_gives_the_same_texts_and_another_others():
    first, again, other = (shift_data("biographies", n=8, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert not {x.text for x in first.balanced} & {x.text for x in other.balanced}

"""What is held out of training text is a rule, seen alike from the text and from the evaluation."""

import random

import pytest

from hooked_qwen.bundled.holdout import HELD_PERCENT, draw, held, held_pairs, shares
from hooked_qwen.families import PromptPair, Template, TooFewPairs

EVERY = [f"{i}-{j}" for i in range(20) for j in range(10)]


def build(i, j):
    return PromptPair(clean=f"{i}-{j}", patch="", answer=("a",), wrong=("b",))


TEMPLATE = Template(
    case="digits",
    pools=(range(20), range(10)),
    build=build,
    held_out=lambda i, j: held(f"{i}-{j}"),
)


def test_a_share_of_all_keys_is_held():
    share = sum(held(f"key {i}") for i in range(10_000)) / 100
    assert share == pytest.approx(HELD_PERCENT, abs=1)


def test_text_and_evaluation_draw_from_opposite_sides():
    rng = random.Random(0)
    trained_on = {draw(rng, TEMPLATE).clean for _ in range(3000)}
    evaluated = [pair.clean for pair in held_pairs(rng, TEMPLATE)]
    assert len(set(evaluated)) == len(evaluated) > 0
    assert trained_on.isdisjoint(evaluated)
    assert trained_on | set(evaluated) == set(EVERY)


def test_no_more_combinations_are_looked_at_than_said(small_chunks):
    small_chunks("hooked_qwen.bundled.holdout.LOOKED_AT", 7)
    all_held = Template(case="", pools=TEMPLATE.pools, build=build, held_out=lambda *_: True)
    assert len(list(held_pairs(random.Random(0), all_held))) == 7


def test_pairs_are_dealt_as_evenly_as_the_cases_allow():
    assert shares([5, 100, 100], 65) == [5, 30, 30]
    assert shares([2, 2], 4) == [2, 2]
    assert shares([0, 3, 1], 3) == [0, 2, 1]
    assert shares([4, 4], 0) == [0, 0]


def test_more_than_there_are_cannot_be_dealt():
    with pytest.raises(TooFewPairs, match="5 pairs were asked for but only 4 exist") as error:
        shares([2, 2], 5)
    assert error.value.exist == 4

"""Attention's patterns in parts, made again, and kept while there is room."""

import pytest
import torch

from tests import toys
from tests.transcoders.toys import FAMILIES, TOKENS, replaced, suite_of, toy_of
from transcoders.frozen.pattern import PatternInMemory, Softmax
from transcoders.replacement import replace_mlps

POS, HEADS, D_HEAD = 9, 3, 5
HEADS_OF_TOY = toys.SIZES["num_attention_heads"]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def whole(pattern):
    n = pattern.key.shape[1]
    return pattern.rows(torch.arange(n), n)[:, 0]


def assert_is(pattern, kept):
    """One pattern by what everything asks of it."""
    groups, shared = kept.heads
    assert pattern.heads == kept.heads
    some = torch.tensor([3, 1, 3, 7])
    v, z = draw(groups, POS, 4), draw(groups, shared, 6, 4)
    pairs = [
        (pattern.rows(some, 6), kept.rows(some, 6)),
        (pattern.rows(torch.arange(POS), POS), kept.tensor),
        (pattern.forward(v), kept.forward(v)),
        (pattern.adjoint(z), kept.adjoint(z)),
    ]
    for found, expected in pairs:
        assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize("window", [None, 1, 3, POS])
@pytest.mark.parametrize("at_once", [1, 4 * HEADS * 2 * POS * 8, 2**20])
def test_attention_made_in_parts_is_the_same(window, at_once):
    torch.manual_seed(0)
    query, key = draw(HEADS, 2, POS, D_HEAD), draw(HEADS, POS, D_HEAD)
    made = Softmax(query, key, 0.3, window, at_once=at_once)
    behind = torch.arange(POS)[:, None] - torch.arange(POS)
    seen = (behind >= 0) & (behind < (window or POS))
    scores = (0.3 * query @ key[:, None].mT).masked_fill(~seen, -torch.inf)
    assert_is(made, PatternInMemory(scores.softmax(-1, dtype=torch.float32).double()))


@pytest.mark.parametrize("family", FAMILIES)
def test_patterns_that_are_not_kept_are_made_again(family):
    kept = replaced(family, suite_of([0, 1]))
    anew = replace_mlps(toy_of(family), suite_of([0, 1]), TOKENS, patterns_kept=0)
    assert not any(isinstance(layer.mixer.mixing, PatternInMemory) for layer in anew.frozen.layers)
    directions = draw(3, 24)
    found, expected = (model.inputs(model.last_token(directions)) for model in (anew, kept))
    assert (found.weight - expected.weight).abs().max() < 1e-12
    assert (found.bias - expected.bias).abs().max() < 1e-12


def test_patterns_are_kept_while_there_is_room():
    whole = 8 * HEADS_OF_TOY * len(TOKENS) ** 2
    model = replace_mlps(toy_of("qwen3"), suite_of([0]), TOKENS, patterns_kept=2 * whole)
    kept = [isinstance(layer.mixer.mixing, PatternInMemory) for layer in model.frozen.layers]
    assert kept == [True, True, False]

"""Frozen token mixers: the delta rule as a pattern, and the two ways to start an adjoint."""

import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from hooked_qwen.load import hook
from tests import toys
from tests.transcoders.toys import FAMILIES, TOKENS, replaced, suite_of, toy_of
from transcoders.frozen.attention import known_attention
from transcoders.frozen.delta_net import Delta, freeze_delta_net
from transcoders.frozen.pattern import PatternInMemory, Softmax
from transcoders.replacement import replace_mlps

POS, HEADS, D_HEAD = 9, 3, 5
HEADS_OF_TOY = toys.SIZES["num_attention_heads"]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def recurrent(query, key, value, log_decay, beta):
    """The gated delta rule as the paper writes it, one token at a time."""
    state, out = torch.zeros(HEADS, D_HEAD, D_HEAD).double(), []
    for t in range(POS):
        state = state * log_decay[:, t].exp()[:, None, None]
        guess = (state * key[:, t, :, None]).sum(1)
        change = beta[:, t, None] * (value[:, t] - guess)
        state = state + key[:, t, :, None] * change[:, None]
        out.append((state * query[:, t, :, None]).sum(1))
    return torch.stack(out, 1)


def whole(pattern):
    n = pattern.key.shape[1]
    return pattern.rows(torch.arange(n), n)[:, 0]


def test_the_delta_rule_is_a_causal_pattern_over_values():
    torch.manual_seed(0)
    query, value = draw(HEADS, POS, D_HEAD), draw(HEADS, POS, D_HEAD)
    key = F.normalize(draw(HEADS, POS, D_HEAD), dim=-1)
    log_decay, beta = -draw(HEADS, POS).abs(), draw(HEADS, POS).sigmoid()
    pattern = whole(Delta(query, key, log_decay, beta))
    expected = recurrent(query, key, value, log_decay, beta)
    assert not pattern.triu(1).any()
    assert (pattern @ value - expected).abs().max() < 1e-12


def test_strong_decay_over_many_tokens_stays_finite():
    key = F.normalize(draw(1, 300, D_HEAD), dim=-1)
    decays = torch.full((1, 300), -20.0).double()
    pattern = whole(Delta(draw(1, 300, D_HEAD), key, decays, torch.ones(1, 300).double()))
    assert pattern.isfinite().all()


@pytest.mark.parametrize("at_once", [1, 5 * HEADS * POS * 8, 2**20])
def test_a_delta_rule_solved_in_parts_is_the_same(at_once):
    torch.manual_seed(0)
    key = F.normalize(draw(HEADS, POS, D_HEAD), dim=-1)
    decays = -draw(HEADS, POS).abs()
    rule = Delta(draw(HEADS, POS, D_HEAD), key, decays, draw(HEADS, POS).sigmoid(), at_once=at_once)
    assert_is(rule, PatternInMemory(whole(replace(rule, at_once=2**20)).unsqueeze(1)))


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


@pytest.mark.parametrize("family", ["qwen2", "qwen3"])
def test_a_sliding_window_is_frozen_with_the_rest(family):
    config_class, model_class, extra = toys.FAMILIES[family]
    windows = {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}
    own = model_class(config_class(**toys.SIZES, **extra, **windows)).double().eval()
    own.set_attn_implementation("eager")
    model = hook(own, name="windowed")
    found = replace_mlps(model, suite_of([0]), TOKENS, patterns_kept=0)
    kept = replace_mlps(model, suite_of([0]), TOKENS)
    assert any(layer.mixer.mixing.window for layer in found.frozen.layers)
    for one, other in zip(found.frozen.layers, kept.frozen.layers, strict=True):
        assert (one.mixer.pattern - other.mixer.pattern).abs().max() < 1e-12


@pytest.mark.parametrize("family", ["qwen2", "qwen3.5"])
def test_an_adjoint_that_starts_at_one_token_is_the_adjoint(family):
    model = replaced(family, suite_of([0]))
    position = torch.tensor([1, 4, 4, 6])
    g = draw(4, 24)
    spread = torch.zeros(7, 4, 24).double()
    spread[position, torch.arange(4)] = g
    for layer in model.frozen.layers:
        found = layer.mixer.adjoint_at(g, position, 7)
        assert (found - layer.mixer.adjoint(spread)).abs().max() < 1e-12
        # What is asked of the first tokens alone is the same.
        early = layer.mixer.adjoint(spread[:5, :3])
        assert (early - found[:5, :3]).abs().max() < 1e-12


def test_an_unknown_mixer_is_named():
    model = replaced("qwen3", suite_of([0]))
    norm, x = model.frozen.layers[0].norm, model.recorded.embed
    odd = torch.nn.Linear(2, 2)
    odd.original_component = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match="cannot freeze the attention Linear: expected"):
        known_attention(odd)
    with pytest.raises(ValueError, match=re.escape("cannot freeze the token mixer Linear")):
        freeze_delta_net(odd, norm, x)

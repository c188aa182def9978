"""Frozen token mixers: the delta rule as a pattern, and the two ways to start an adjoint."""

import re

import pytest
import torch
from torch.nn import functional as F

from tests.transcoders.toys import TOKENS, replaced, suite_of
from transcoders.frozen.attention import freeze_attention
from transcoders.frozen.delta_net import delta_pattern, freeze_delta_net

POS, HEADS, D_HEAD = 9, 3, 5


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


def test_the_delta_rule_is_a_causal_pattern_over_values():
    torch.manual_seed(0)
    query, value = draw(HEADS, POS, D_HEAD), draw(HEADS, POS, D_HEAD)
    key = F.normalize(draw(HEADS, POS, D_HEAD), dim=-1)
    log_decay, beta = -draw(HEADS, POS).abs(), draw(HEADS, POS).sigmoid()
    pattern = delta_pattern(query, key, log_decay, beta)
    expected = recurrent(query, key, value, log_decay, beta)
    assert not pattern.triu(1).any()
    assert (pattern @ value - expected).abs().max() < 1e-12


def test_strong_decay_over_many_tokens_stays_finite():
    key = F.normalize(draw(1, 300, D_HEAD), dim=-1)
    decays = torch.full((1, 300), -20.0).double()
    pattern = delta_pattern(draw(1, 300, D_HEAD), key, decays, torch.ones(1, 300).double())
    assert pattern.isfinite().all()


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
        freeze_attention(odd, norm, x, torch.zeros(4, len(TOKENS), len(TOKENS)))
    with pytest.raises(ValueError, match=re.escape("cannot freeze the token mixer Linear")):
        freeze_delta_net(odd, norm, x)

"""The gated delta rule as a causal pattern over values, whole and in parts."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from tests.transcoders.frozen.test_pattern import assert_is, draw, whole
from transcoders.frozen.delta_net import Delta
from transcoders.frozen.pattern import PatternInMemory

POS, HEADS, D_HEAD = 9, 3, 5


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

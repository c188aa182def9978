"""Frozen token mixers: windows, adjoints that start at one token, and mixers that are not known."""

import re

import pytest
import torch

from hooked_qwen.load import hook
from tests import toys
from tests.transcoders.toys import TOKENS, replaced, suite_of
from transcoders.frozen.attention import known_attention
from transcoders.frozen.delta_net import freeze_delta_net
from transcoders.replacement import replace_mlps


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
    g = torch.randn(4, 24, dtype=torch.float64)
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

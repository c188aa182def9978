"""What the dense step tells of a batch beside its loss."""

import math

import pytest
import torch

from tests.saes.architectures.losses import TOKENS, problem, step


@pytest.mark.parametrize("architecture", ["relu", "gated", "jumprelu"])
def test_what_the_log_shows(architecture):
    weights, x, y = problem(architecture)
    result = step(weights, x, y, architecture)
    pre = x @ weights.W_enc.T + weights.b_enc
    on = pre > (weights.own["log_threshold"].exp() if architecture == "jumprelu" else 0)
    if architecture == "gated":
        on &= (pre - weights.b_enc) * weights.own["r_mag"].exp() + weights.own["b_mag"] > 0
    assert result.l0.item() == pytest.approx(float(on.sum()) / TOKENS)
    assert torch.equal(result.fired, on.any(0))
    assert math.isfinite(result.squared_error)
    along = (result.gradients.W_dec * weights.W_dec).sum(-1)
    torch.testing.assert_close(result.along, along)

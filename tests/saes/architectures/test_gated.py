"""Gated: its gradients, and the gate written as a threshold of the magnitude."""

import pytest
import torch

from saes.architectures.architecture import TrainingStart
from saes.architectures.gated import begin, fold
from tests.saes.architectures.losses import equals_autograd, problem


@pytest.mark.parametrize("skip", [False, True], ids=["plain", "skip"])
def test_gradients_equal_autograd_of_the_plain_formula(skip):
    equals_autograd(*problem("gated", skip=skip), "gated")


def test_the_folded_threshold_opens_where_the_gate_does():
    weights, x, _ = problem("gated")
    folded = fold(weights)
    u = x @ weights.W_enc.T
    magnitude = weights.own["r_mag"].exp() * u + weights.own["b_mag"]
    pre = folded.gain * u + folded.bias
    torch.testing.assert_close(pre, magnitude)
    opened = u + weights.b_enc > 0
    assert torch.equal(pre > folded.threshold, opened)
    assert opened.any()
    assert not opened.all()


def test_the_magnitude_is_the_encoder_s_at_first():
    weights, x, _ = problem("relu")
    begun = begin(TrainingStart(weights=weights, x=x, k=3, sparsity=0.5))
    assert set(begun.parameters) == {"r_mag", "b_mag"}
    assert not any(value.any() for value in begun.parameters.values())
    assert begun.numbers == {"coefficient": 0.5}

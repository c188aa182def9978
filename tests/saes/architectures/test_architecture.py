"""An architecture that says nothing but its step learns what all learn and folds as they do."""

import torch

from saes.architectures.architecture import Architecture, TrainingStart
from tests.saes.architectures.losses import problem


def test_what_an_architecture_is_where_it_says_nothing():
    weights, x, _ = problem("relu")
    plain = Architecture(step=lambda *_: None)
    begun = plain.begin(TrainingStart(weights=weights, x=x, k=None, sparsity=1.0))
    assert not begun.parameters
    assert not begun.numbers
    folded = plain.fold(weights)
    assert torch.equal(
        folded.gain * (x @ weights.W_enc.T) + folded.bias, x @ weights.W_enc.T + weights.b_enc
    )
    assert folded.threshold is None

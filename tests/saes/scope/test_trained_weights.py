"""Which weights are trained."""

import torch

from saes.scope.trained_weights import counts, opened
from tests.toys import toy_hf


def test_what_is_trained_is_counted():
    assert counts(opened(toy_hf(), None, base="toy"))["trained"] == counts(toy_hf())["weights"]
    found = counts(opened(toy_hf(), 2, base="toy"))
    linear = [m for m in toy_hf().model.modules() if isinstance(m, torch.nn.Linear)]
    assert found["trained"] == sum(2 * sum(m.weight.shape) for m in linear)

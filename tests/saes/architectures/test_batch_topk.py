"""BatchTopK: the batch keeps its k * tokens largest, whatever the batch before says of them."""

from dataclasses import replace

import pytest
import torch

from saes.architectures.architecture import TrainingStart
from saes.architectures.batch_topk import begin, step
from saes.training.step import number_like
from tests.saes.architectures.losses import TOKENS, problem
from tests.saes.architectures.test_topk import options


def of_batch(k, x, smallest=0.0):
    return replace(options(k), numbers={"smallest": number_like(smallest, x)})


def test_the_batch_keeps_its_largest():
    weights, x, y = problem("topk")
    pre = (x @ weights.W_enc.T + weights.b_enc).relu()
    least = pre.flatten().sort(descending=True).values[2 * TOKENS - 1]
    f = pre * (pre >= least)
    result = step(weights, x, y, of_batch(2, x))
    error = y - f @ weights.W_dec - weights.b_dec
    assert result.loss.item() == pytest.approx(float(error.square().mean()))
    assert result.numbers["smallest"].item() == pytest.approx(float(least))
    assert result.l0 == 2
    assert len((f > 0).sum(1).unique()) > 1


@pytest.mark.parametrize("smallest", [1e-6, 0.5, 100.0])
def test_a_wrong_guess_changes_nothing(smallest):
    weights, x, y = problem("topk")
    plain = step(weights, x, y, of_batch(2, x))
    guessed = step(weights, x, y, of_batch(2, x, smallest))
    for name, gradient in plain.gradients.named().items():
        torch.testing.assert_close(guessed.gradients.named()[name], gradient, msg=name)


def test_nothing_is_guessed_before_the_first_batch():
    weights, x, _ = problem("topk")
    begun = begin(TrainingStart(weights=weights, x=x, k=2, sparsity=1.0))
    assert begun.numbers == {"smallest": 0}
    assert not begun.parameters

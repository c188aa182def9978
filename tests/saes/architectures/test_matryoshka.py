"""Matryoshka: the loss is a mean over nested dictionaries, whose widths double."""

from dataclasses import replace

import pytest

from saes.architectures import batch_topk
from saes.architectures.matryoshka import ARCHITECTURE, nested
from tests.saes.architectures.losses import FEATURES, TOKENS, problem
from tests.saes.architectures.test_batch_topk import of_batch


@pytest.mark.parametrize(
    ("width", "widths"), [(64, (4, 8, 16, 32)), (10, (1, 2, 5)), (3, (1,)), (1, ())]
)
def test_nested_widths_rise_and_stay_below_the_whole(width, widths):
    assert nested(width) == widths


def test_its_step_is_batch_topk_s_averaged_over_the_nested():
    weights, x, y = problem("topk")
    prefixes = (*nested(FEATURES), FEATURES)
    result = ARCHITECTURE.step(weights, x, y, replace(of_batch(2, x), prefixes=prefixes))
    plain = batch_topk.step(weights, x, y, of_batch(2, x))
    assert result.squared_error.item() == pytest.approx(plain.squared_error.item())
    assert result.fired.equal(plain.fired)
    pre = (x @ weights.W_enc.T + weights.b_enc).relu()
    f = pre * (pre >= pre.flatten().sort(descending=True).values[2 * TOKENS - 1])
    rest = y - weights.b_dec
    losses = [(rest - f[:, :n] @ weights.W_dec[:n]).square().mean() for n in prefixes]
    assert result.loss.item() == pytest.approx(float(sum(losses) / len(losses)))

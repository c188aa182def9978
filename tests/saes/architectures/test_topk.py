"""TopK: each token keeps its k largest, and AuxK reaches features that are dead."""

import pytest
import torch

from saes.architectures.architecture import StepOptions
from saes.architectures.topk import ARCHITECTURE, step
from saes.nonlinearities import topk
from saes.training.config import TrainConfig
from saes.training.step import Dead, ScratchMemory
from tests.saes.architectures.losses import FEATURES, TOKENS, problem


def options(k, *, dead=(), aux=0.0):
    return StepOptions(
        k=k,
        prefixes=(FEATURES,),
        config=TrainConfig(width=FEATURES, aux_coefficient=aux),
        numbers={},
        dead=Dead(features=torch.tensor(dead, dtype=torch.long)),
        memory=ScratchMemory(),
    )


@pytest.mark.parametrize("k", [1, 3])
def test_each_token_keeps_its_k_largest(k):
    weights, x, y = problem("topk")
    result = step(weights, x, y, options(k))
    f = topk(x @ weights.W_enc.T + weights.b_enc, k)
    error = y - f @ weights.W_dec - weights.b_dec
    assert result.loss.item() == pytest.approx(float(error.square().mean()))
    assert result.l0.item() == pytest.approx(float((f > 0).sum()) / TOKENS)


def test_dead_features_have_a_gradient_by_the_aux_coefficient_alone():
    weights, x, y = problem("topk")
    f = topk(x @ weights.W_enc.T + weights.b_enc, 1)
    off = next(i for i in range(FEATURES) if not f[:, i].any())
    weights.b_enc[off] += 1e-9 - (x @ weights.W_enc.T + weights.b_enc)[:, off].max()
    without, revived = (
        step(weights, x, y, options(1, dead=[off], aux=aux)).gradients.W_enc[off].clone()
        for aux in (0.0, 1.0)
    )
    assert not without.any()
    assert revived.any()


def test_topk_has_no_nested_widths_of_its_own():
    assert ARCHITECTURE.nested(64) == ()

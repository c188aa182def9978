"""The hand-written TopK step equals autograd of the plain formula."""

import pytest
import torch

from saes.nonlinearities import topk
from saes.step import Weights, topk_step


def problem(seed: int, d_source: int = 6, d_target: int = 5) -> tuple:
    torch.manual_seed(seed)
    weights = Weights(
        *(torch.randn(*shape, dtype=torch.float64) for shape in [(12, d_source), (12,)]),
        *(torch.randn(*shape, dtype=torch.float64) for shape in [(12, d_target), (d_target,)]),
    )
    x, y = (torch.randn(9, d, dtype=torch.float64) for d in (d_source, d_target))
    return weights, x, y


def dense_loss(weights: Weights, x, y, k: int, dead, coefficient: float) -> torch.Tensor:
    """The formula of the module's docstring, with nothing sparse about it."""
    pre = x @ weights.W_enc.T + weights.b_enc
    error = y - topk(pre, k) @ weights.W_dec - weights.b_dec
    loss = error.square().mean()
    if len(dead):
        k_aux = min(y.shape[-1] // 2, len(dead))
        e = error.detach()
        revived = topk(pre[:, dead], k_aux) @ weights.W_dec[dead]
        loss = loss + coefficient * (e - revived).square().sum() / e.square().sum()
    return loss


@pytest.mark.parametrize("dead", [[], [1, 4, 7], [0]])
@pytest.mark.parametrize("widths", [(6, 5), (5, 5)])
def test_gradients_equal_autograd_of_the_dense_formula(dead, widths):
    weights, x, y = problem(0, *widths)
    dead = torch.tensor(dead, dtype=torch.long)
    result = topk_step(weights, x, y, k=3, dead=dead, aux_coefficient=0.5)
    leaves = [w.clone().requires_grad_() for w in weights.tensors()]
    dense_loss(Weights(*leaves), x, y, 3, dead, 0.5).backward()
    for name, leaf, gradient in zip(
        ("W_enc", "b_enc", "W_dec", "b_dec"), leaves, result.gradients.tensors(), strict=True
    ):
        torch.testing.assert_close(gradient, leaf.grad, atol=1e-12, rtol=1e-10, msg=name)


def test_auxk_gives_dead_features_an_encoder_gradient():
    weights, x, y = problem(1)
    weights.b_enc[2] = -3.0
    without = topk_step(weights, x, y, k=2, dead=torch.tensor([], dtype=int), aux_coefficient=1.0)
    assert not without.gradients.W_enc[2].any()
    weights.b_enc[2] = 0.1
    revived = topk_step(weights, x, y, k=1, dead=torch.tensor([2]), aux_coefficient=1.0)
    plain = topk_step(weights, x, y, k=1, dead=torch.tensor([], dtype=int), aux_coefficient=1.0)
    assert (revived.gradients.W_enc[2] - plain.gradients.W_enc[2]).abs().max() > 1e-6

"""Losses of the architectures that learn their sparsity: ReLU, JumpReLU and Gated.

    reconstruction = |y - y_hat|^2 / (tokens * d_target)      y_hat = f W_dec + b_dec (+ skip)

    relu      f = relu(pre)                      + c * sum_i f_i |W_dec_i| / tokens
    gated     f = [pre > 0] relu(magnitude)      + c * sum_i relu(pre)_i |W_dec_i| / tokens
              magnitude = exp(r_mag) (pre - b_enc) + b_mag
                                                 + |y - relu(pre) W_dec' - b_dec'|^2 / (tokens * d)
              with W_dec' and b_dec' held constant: it teaches the gate
    jumprelu  f = pre [pre > theta]              + c * L0                 no target for L0
                                                 + c * (L0 / k - 1)^2     target k

L0 counts features on a token. Its gradient, and that of f to theta, are those of the
straight-through estimate with a rectangular kernel of width eps:

    d[pre > theta]/dtheta = -K/eps      df/dtheta = -theta K/eps      K = [|pre - theta| < eps/2]

Decoder rows have unit norm in training, so the decoder-norm weight is written, and is one.

Source: Bricken et al. 2023 and Conerly et al. 2024 (L1 weighted by decoder norms); Rajamanoharan
et al. 2024, arXiv:2404.16014 (Gated) and arXiv:2407.14435 (JumpReLU); McDougall et al. 2025, Gemma
Scope 2 (quadratic penalty).
Differs: c multiplies sums over features divided by d_target as the reconstruction is, so that one
c suits all widths of the model.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from saes.training.sparse_step import StepResult, Weights

Pre = Float[Tensor, "tokens features"]


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """What sparsity costs."""

    architecture: str
    coefficient: float
    target: int | None = None
    "jumprelu: the L0 that the quadratic penalty pulls to; None for the linear penalty"
    bandwidth: float = 0.0
    "jumprelu: eps, in units of pre-activations"


def penalised_step(
    weights: Weights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    *,
    penalty: Penalty,
) -> StepResult:
    """Loss and gradients of one batch, by autograd through the formula above."""
    leaves = {n: w.detach().requires_grad_() for n, w in weights.named().items()}
    with torch.enable_grad():
        loss, f, error = penalised_loss(Weights(**leaves), x, y, penalty)
        gradients = torch.autograd.grad(loss, list(leaves.values()))
    by_name = dict(zip(leaves, gradients, strict=True))
    on = f.detach() > 0
    fired: Int[Tensor, " fired"] = on.any(0).nonzero().squeeze(1)
    return StepResult(
        Weights(**by_name),
        along=(by_name["W_dec"] * weights.W_dec).sum(-1),
        loss=float(loss.detach()),
        squared_error=float(error.detach().square().sum()),
        fired=fired,
        l0=float(on.sum()) / len(x),
        smallest=0.0,
    )


def penalised_loss(
    weights: Weights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    penalty: Penalty,
) -> tuple[Float[Tensor, ""], Float[Tensor, "tokens features"], Float[Tensor, "tokens d_target"]]:
    """The loss, the features and the reconstruction's error."""
    pre = x @ weights.W_enc.T + weights.b_enc
    norms = weights.W_dec.norm(dim=-1)
    skip = 0.0 if weights.W_skip is None else x @ weights.W_skip.T
    rest = y - weights.b_dec - skip
    scale = penalty.coefficient / y.shape[1]
    if penalty.architecture == "relu":
        f = pre.relu()
        cost = scale * (f * norms).sum(-1).mean()
    elif penalty.architecture == "gated":
        assert weights.r_mag is not None
        assert weights.b_mag is not None
        gate = pre.relu()
        f = (pre > 0) * ((pre - weights.b_enc) * weights.r_mag.exp() + weights.b_mag).relu()
        aside = rest.detach() - gate @ weights.W_dec.detach()
        cost = scale * (gate * norms).sum(-1).mean() + aside.square().mean()
    else:
        assert weights.log_threshold is not None
        theta = weights.log_threshold.exp()
        f = _JumpReLU.apply(pre, theta, penalty.bandwidth)
        l0 = _Step.apply(pre, theta, penalty.bandwidth).sum(-1).mean()
        if penalty.target is None:
            cost = scale * l0
        else:
            cost = penalty.coefficient * (l0 / penalty.target - 1).square()
    error = rest - f @ weights.W_dec
    return error.square().mean() + cost, f, error


class _JumpReLU(torch.autograd.Function):
    """pre where it exceeds the threshold, zero elsewhere; straight-through to the threshold."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        pre, theta = ctx.saved_tensors
        (grad,) = grads
        kernel = ((pre - theta).abs() < ctx.bandwidth / 2) * grad
        return grad * (pre > theta), -(theta / ctx.bandwidth) * kernel.sum(0), None


class _Step(torch.autograd.Function):
    """One where `pre` exceeds the threshold; straight-through to the threshold, none to `pre`."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, bandwidth: float) -> Tensor:
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth
        return (pre > theta).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, Tensor, None]:
        pre, theta = ctx.saved_tensors
        (grad,) = grads
        kernel = ((pre - theta).abs() < ctx.bandwidth / 2) * grad
        return None, -kernel.sum(0) / ctx.bandwidth, None

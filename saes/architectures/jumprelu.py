"""JumpReLU: pre-activations above a threshold are on; the thresholds are learnt.

    f = pre [pre > theta]        cost = c / d_target * L0        no target for L0
                                        3 (L0 / k - 1)^2         target k

L0 counts features on a token. Its gradient, and that of f to theta, are those of the
straight-through estimate with a rectangular kernel of width eps:

    d[pre > theta]/dtheta = -K/eps      df/dtheta = -theta K/eps      K = [|pre - theta| < eps/2]

Source: Rajamanoharan et al. 2024, arXiv:2407.14435; McDougall et al. 2025, Gemma Scope 2
(quadratic penalty).
"""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saes.architectures.architecture import (
    Architecture,
    Begun,
    FoldedFeatures,
    StepOptions,
    TrainingStart,
    fold_encoder,
)
from saes.training.dense_step import dense_step
from saes.training.step import DictionaryWeights, StepResult, number_like

BANDWIDTH = 0.5
"Width of the kernel, as a share of the standard deviation of the first pre-activations."
THRESHOLD_RATE = 10.0
"Learning rate of the log-thresholds over that of the weights: they have far to go."
TARGET_COEFFICIENT = 3.0
"Weight of the quadratic penalty, at which L0 ends within a few percent of its target."


def begin(start: TrainingStart) -> Begun:
    """Thresholds that give the average token its k features."""
    W_enc = start.weights.W_enc
    pre = start.x[:1024] @ W_enc.T
    share = (start.k or 32) / len(W_enc)
    theta = float(pre.float().flatten().sort().values[int((1 - share) * (pre.numel() - 1))])
    log_threshold = torch.full_like(start.weights.b_enc, max(theta, 1e-3)).log()
    numbers = {"coefficient": start.sparsity, "bandwidth": BANDWIDTH * float(pre.std())}
    return Begun(
        parameters={"log_threshold": log_threshold},
        numbers={name: number_like(value, start.x) for name, value in numbers.items()},
    )


def step(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    options: StepOptions,
) -> StepResult:
    """The dense step; with a k, the penalty pulls L0 to it."""
    numbers, k = options.numbers, options.k
    scale = (numbers["coefficient"] / y.shape[1]).to(x.dtype)

    def encoding(w: DictionaryWeights, pre: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        theta = w.own["log_threshold"].exp()
        f = _JumpReLU.apply(pre, theta, numbers["bandwidth"])
        l0 = _Step.apply(pre, theta, numbers["bandwidth"]).sum(-1).mean()
        return f, scale * l0 if k is None else TARGET_COEFFICIENT * (l0 / k - 1).square()

    result = dense_step(weights, x, y, encoding)
    return replace(result, numbers=numbers)


def fold(weights: DictionaryWeights) -> FoldedFeatures:
    """The threshold as it is."""
    return replace(fold_encoder(weights), threshold=weights.own["log_threshold"].exp())


class _JumpReLU(torch.autograd.Function):
    """pre where it exceeds the threshold, zero elsewhere; straight-through to the threshold."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(pre, theta, bandwidth)
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None]:
        pre, theta, bandwidth = ctx.saved_tensors
        (grad,) = grads
        kernel = ((pre - theta).abs() < bandwidth / 2) * grad
        return grad * (pre > theta), -(theta / bandwidth) * kernel.sum(0), None


class _Step(torch.autograd.Function):
    """One where `pre` exceeds the threshold; straight-through to the threshold, none to `pre`."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, theta: Tensor, bandwidth: Tensor) -> Tensor:
        ctx.save_for_backward(pre, theta, bandwidth)
        return (pre > theta).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, Tensor, None]:
        pre, theta, bandwidth = ctx.saved_tensors
        (grad,) = grads
        kernel = ((pre - theta).abs() < bandwidth / 2) * grad
        return None, -kernel.sum(0) / bandwidth, None


ARCHITECTURE = Architecture(
    step=step,
    begin=begin,
    fold=fold,
    rates={"log_threshold": THRESHOLD_RATE},
    threshold="learnt",
)

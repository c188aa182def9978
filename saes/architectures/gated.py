"""Gated: one bias decides whether a feature is on, another scale and bias how much.

    f = [pre > 0] relu(magnitude)        magnitude = exp(r_mag) (pre - b_enc) + b_mag
    cost = c / d_target * sum_i relu(pre)_i |W_dec_i| / tokens
         + |y - relu(pre) W_dec' - b_dec'|^2 / (tokens * d_target)

with W_dec' and b_dec' held constant: it teaches the gate. `b_enc` is the gate's bias. Where a k is
given, c is moved after each step until L0 is k on average.

Source: Rajamanoharan et al. 2024, arXiv:2404.16014.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from saes.architectures import relu
from saes.architectures.architecture import (
    Architecture,
    Begun,
    FoldedFeatures,
    StepOptions,
    TrainingStart,
)
from saes.training.dense_step import dense_step, towards_k
from saes.training.step import DictionaryWeights, StepResult


def begin(start: TrainingStart) -> Begun:
    """Scale one and bias zero: the magnitude is the gate."""
    zeros = torch.zeros_like(start.weights.b_enc)
    return replace(relu.begin(start), parameters={"r_mag": zeros, "b_mag": zeros.clone()})


def step(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    options: StepOptions,
) -> StepResult:
    """The dense step; the coefficient moves towards k."""
    scale = (options.numbers["coefficient"] / y.shape[1]).to(x.dtype)

    def encoding(w: DictionaryWeights, pre: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        gate = pre.relu()
        f = (pre > 0) * ((pre - w.b_enc) * w.own["r_mag"].exp() + w.own["b_mag"]).relu()
        aside = rest.detach() - gate @ w.W_dec.detach()
        return f, scale * (gate * w.W_dec.norm(dim=-1)).sum(-1).mean() + aside.square().mean()

    result = dense_step(weights, x, y, encoding)
    return replace(result, numbers=towards_k(options.numbers, result.l0, options.k))


def fold(weights: DictionaryWeights) -> FoldedFeatures:
    """The gate w x + b_enc > 0, said of the magnitude."""
    gain, bias = weights.own["r_mag"].exp(), weights.own["b_mag"]
    return FoldedFeatures(gain=gain, bias=bias, threshold=bias - gain * weights.b_enc)


ARCHITECTURE = Architecture(step=step, begin=begin, fold=fold, threshold="learnt")

"""Gradients of the TopK loss by hand: one dense product to encode, everything else sparse.

Of `features` pre-activations a token keeps only k, so decoding and all four gradients touch k rows
a token. Autograd through the dense formula does six dense products for the same numbers.

    loss = |f @ W_dec + b_dec - y|^2 / (tokens * d_target)  +  aux * |e - f_dead @ W_dec|^2 / |e|^2

where e = y - (f @ W_dec + b_dec), held constant, and f_dead are the k_aux largest of the dead
features' pre-activations, where positive: it gives features that no token chooses a gradient.

Source: Gao et al. 2024 (TopK, AuxK), arXiv:2406.04093.
Differs: the auxiliary residual is the target's, which for a transcoder is not the input's.

Axes: `tokens` activations in a batch, `k` features kept for each.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from saes.nonlinearities import topk, topk_sparse


@dataclass(frozen=True)
class Weights:
    """A dictionary's weights while it trains, or their gradients."""

    W_enc: Float[Tensor, "features d_source"]
    b_enc: Float[Tensor, " features"]
    W_dec: Float[Tensor, "features d_target"]
    b_dec: Float[Tensor, " d_target"]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.W_enc, self.b_enc, self.W_dec, self.b_dec


@dataclass(frozen=True)
class StepResult:
    """Gradients of one batch and what the log shows of it."""

    gradients: Weights
    squared_error: float
    "sum over the batch"
    active: Int[Tensor, "tokens k"]
    values: Float[Tensor, "tokens k"]


def topk_step(
    weights: Weights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    *,
    k: int,
    dead: Int[Tensor, " dead"],
    aux_coefficient: float,
) -> StepResult:
    """Loss and exact gradients of one batch; `dead` lists the features that AuxK revives."""
    W_enc, b_enc, W_dec, b_dec = weights.tensors()
    pre = torch.addmm(b_enc, x, W_enc.T)
    values, active = topk_sparse(pre, k)
    error = y - F.embedding_bag(active, W_dec, per_sample_weights=values, mode="sum") - b_dec

    d_output = error * (-2 / error.numel())
    d_values = _row_products(d_output, W_dec, active) * (values > 0)
    by_feature = _transpose(active, len(W_enc))
    gradients = Weights(
        W_enc=_scatter_rows(by_feature, d_values, x),
        b_enc=torch.zeros_like(b_enc).index_add_(0, active.flatten(), d_values.flatten()),
        W_dec=_scatter_rows(by_feature, values, d_output),
        b_dec=d_output.sum(0),
    )
    squared_error = float(error.square().sum())
    if len(dead) and aux_coefficient and squared_error > 0:
        _add_aux(gradients, weights, x, error, pre, dead, aux_coefficient / squared_error)
    return StepResult(gradients, squared_error, active, values)


def _add_aux(
    gradients: Weights,
    weights: Weights,
    x: Float[Tensor, "tokens d_source"],
    error: Float[Tensor, "tokens d_target"],
    pre: Float[Tensor, "tokens features"],
    dead: Int[Tensor, " dead"],
    coefficient: float,
) -> None:
    """Add the gradients of AuxK; products over the dead features only are small enough dense."""
    k_aux = min(max(1, error.shape[-1] // 2), len(dead))
    f = topk(pre[:, dead], k_aux)
    W_dead = weights.W_dec[dead]
    d_output = (f @ W_dead - error) * (2 * coefficient)
    d_pre = (d_output @ W_dead.T) * (f > 0)
    gradients.W_dec.index_add_(0, dead, f.T @ d_output)
    gradients.W_enc.index_add_(0, dead, d_pre.T @ x)
    gradients.b_enc.index_add_(0, dead, d_pre.sum(0))


def _row_products(
    d_output: Float[Tensor, "tokens d"],
    rows: Float[Tensor, "features d"],
    active: Int[Tensor, "tokens k"],
) -> Float[Tensor, "tokens k"]:
    """For each token, the products of its `d_output` with the rows of its active features.

    This is the gradient of an embedding bag to its weights, which never forms the
    `[tokens, k, d]` gather.
    """
    n, k = active.shape
    bag = torch.arange(n, device=active.device)
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        d_output, rows, active.flatten(), bag * k, bag.repeat_interleave(k), 0
    ).view(n, k)


@dataclass(frozen=True)
class _ByFeature:
    """The active (token, feature) pairs grouped by feature."""

    order: Int[Tensor, " pairs"]
    tokens: Int[Tensor, " pairs"]
    starts: Int[Tensor, " features"]


def _transpose(active: Int[Tensor, "tokens k"], features: int) -> _ByFeature:
    flat = active.flatten()
    order = flat.sort(stable=True).indices
    counts = torch.bincount(flat, minlength=features)
    return _ByFeature(order, order // active.shape[1], counts.cumsum(0) - counts)


def _scatter_rows(
    by_feature: _ByFeature, values: Float[Tensor, "tokens k"], rows: Float[Tensor, "tokens d"]
) -> Float[Tensor, "features d"]:
    """Row i: the sum over tokens n with feature i active of `values[n, i] * rows[n]`."""
    return F.embedding_bag(
        by_feature.tokens,
        rows,
        by_feature.starts,
        per_sample_weights=values.flatten()[by_feature.order],
        mode="sum",
    )

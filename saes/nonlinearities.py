"""Activation functions of sparse dictionaries: from pre-activations to features."""

import torch
from jaxtyping import Float
from torch import Tensor

Dense = Float[Tensor, "*batch features"]


def topk(pre: Dense, k: int, *, signed: bool = False) -> Dense:
    """The `k` largest pre-activations where positive, zero elsewhere.

        f_i = relu(pre_i) if i is among the k largest, else 0        signed: pre_i, no relu

    Source: Gao et al. 2024, arXiv:2406.04093.
    """
    values, index = pre.topk(k, dim=-1, sorted=False)
    values = values if signed else values.relu()
    return torch.zeros_like(pre).scatter(-1, index, values)


def above_threshold(pre: Dense, threshold: Float[Tensor, " features"]) -> Dense:
    """Positive pre-activations above each feature's threshold, as they are.

        f_i = relu(pre_i) * [pre_i > threshold_i]

    Source: Rajamanoharan et al. 2024 (JumpReLU), arXiv:2407.14435.
    """
    return pre.relu() * (pre > threshold)

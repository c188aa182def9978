"""Bootstrap intervals of ratios of sums, such as an error over a variance.

Blocks of text are drawn again with replacement, because the tokens within a block depend on
each other: an interval over tokens would be too narrow.

Source: Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13 (percentile interval).
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

RESAMPLES = 2000
Interval = list[float] | None
"Low and high end of a 95 % interval, None where there is none."


def ratio(
    numerator: Float[Tensor, " blocks"], denominator: Float[Tensor, " blocks"]
) -> float | None:
    """sum(numerator) / sum(denominator), None where the denominator's sum is 0."""
    total = float(denominator.sum())
    return float(numerator.sum()) / total if total else None


def ratio_interval(
    numerator: Float[Tensor, " blocks"], denominator: Float[Tensor, " blocks"], *, seed: int = 0
) -> Interval:
    """Low and high end of the 95 % percentile interval of the ratio of the sums.

    None for fewer than two blocks, and where a resample's denominator is 0. Too narrow on few
    blocks: with ten of them it covers the truth about nine times in ten.
    """
    n = len(numerator)
    if n < 2:
        return None
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randint(n, (RESAMPLES, n), generator=generator)
    ratios = numerator[draws].sum(1) / denominator[draws].sum(1)
    ends = ratios.quantile(torch.tensor([0.025, 0.975], dtype=ratios.dtype)).tolist()
    return ends if all(map(math.isfinite, ends)) else None

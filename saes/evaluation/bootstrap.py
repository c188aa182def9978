"""Bootstrap intervals: whole prompts or blocks of text are drawn again, with replacement.

Not tokens: those within a block depend on each other, and an interval over them would be too
narrow. Too narrow on few blocks: with ten of them it covers the truth about nine times in ten.

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

    None for fewer than two blocks, and where a resample's denominator is 0.
    """
    shares = resamples(len(numerator), seed=seed)
    return interval((shares @ numerator.double()) / (shares @ denominator.double()))


def resamples(n: int, *, seed: int = 0) -> Float[Tensor, "draws {n}"]:
    """The share of each of `n` prompts or blocks in each draw: weights of a mean.

    None at all for fewer than two, which say nothing of their spread.
    """
    if n < 2:
        return torch.zeros(0, n, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (RESAMPLES, n), generator=generator)
    counts = torch.zeros(RESAMPLES, n, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts)) / n


def interval(draws: Float[Tensor, " draws"]) -> Interval:
    """The 95 % percentile interval of a number computed in every draw.

    None without draws, and where one of the ends is not finite.
    """
    if not len(draws):
        return None
    ends = draws.quantile(torch.tensor([0.025, 0.975], dtype=draws.dtype)).tolist()
    return ends if all(map(math.isfinite, ends)) else None

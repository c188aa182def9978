"""How redundant a test set is by what models got right in it, and whether a subset stands for it.

    agreement    over models, the Spearman correlation of accuracies on random items with those on
                 all; mean over draws and over sizes of 10 to 90 %. A set of which few items rank
                 models as all do is redundant.
    error        mean over models of |accuracy on a subset - accuracy on all|

Of a single model only the error is told: by accuracy and number of items alone, it says nothing of
redundancy.

Source: Qwen-Scope, arXiv:2605.11887 (redundancy of a benchmark by results against redundancy by
features). Differs: intervals, and the number of items and tokens as baselines of it.

Axes: `items` samples of a set; `models`; `sets`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from saes.evaluation.bootstrap import Interval, interval, resamples

SHARES = tuple(i / 10 for i in range(1, 10))
DRAWS = 200
LEAST_MODELS = 3
LEAST_SETS = 4


@dataclass(frozen=True, kw_only=True)
class SubsetCheck:
    """What a subset of the items says of the models."""

    error: float
    agreement: float | None
    "None for fewer than three models, and where all are equally good on all items"


@dataclass(frozen=True, kw_only=True)
class RandomCheck:
    """The same of random subsets of one size, the mean and 95 % of the draws."""

    error: float
    error_interval: Interval
    agreement: float | None
    agreement_interval: Interval


def checked(correct: Float[Tensor, "items models"], chosen: Sequence[int]) -> SubsetCheck:
    """A chosen subset against all items."""
    some = correct[list(chosen)].double().mean(0)[None]
    agreements = _agreements(some, correct)
    return SubsetCheck(
        error=float(_errors(some, correct)),
        agreement=None if agreements is None else float(agreements[0]),
    )


def checked_at_random(
    correct: Float[Tensor, "items models"], size: int, *, draws: int = DRAWS, seed: int = 0
) -> RandomCheck:
    """Random subsets of `size` items against all items."""
    some = _accuracies(correct, size, draws, seed)
    errors, agreements = _errors(some, correct), _agreements(some, correct)
    return RandomCheck(
        error=float(errors.mean()),
        error_interval=interval(errors),
        agreement=None if agreements is None else float(agreements.mean()),
        agreement_interval=None if agreements is None else interval(agreements),
    )


def redundancy_by_results(
    correct: Float[Tensor, "items models"], *, draws: int = DRAWS, seed: int = 0
) -> float | None:
    """The mean agreement of random items with all of them; None where models have no ranks."""
    n, found = len(correct), []
    for share in SHARES:
        some = _accuracies(correct, max(1, round(share * n)), draws, seed)
        agreements = _agreements(some, correct)
        if agreements is None:
            return None
        found.append(float(agreements.mean()))
    return sum(found) / len(found)


def _accuracies(
    correct: Float[Tensor, "items models"], size: int, draws: int, seed: int
) -> Float[Tensor, "draws models"]:
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(correct), generator=generator)[:size] for _ in range(draws)]
    return torch.stack([correct[order].double().mean(0) for order in orders])


def _errors(
    some: Float[Tensor, "draws models"], correct: Float[Tensor, "items models"]
) -> Float[Tensor, " draws"]:
    return (some - correct.double().mean(0)).abs().mean(1)


def _agreements(
    some: Float[Tensor, "draws models"], correct: Float[Tensor, "items models"]
) -> Float[Tensor, " draws"] | None:
    """Spearman of each row with the accuracies on all items; 0 for a row without ranks.

    None where the accuracies on all items have none, or are too few.
    """
    whole = correct.double().mean(0)
    if len(whole) < LEAST_MODELS or np.ptp(whole.numpy().round(12)) == 0:
        return None
    return torch.from_numpy(rank_correlations(some.numpy(), whole[None].numpy()))


def rank_correlations(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman of each row with the other's; 0 where one is constant."""
    a, b = _centred_ranks(a), _centred_ranks(b)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.divide((a * b).sum(1), size, out=np.zeros_like(size), where=size > 0)


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # Sums of the same numbers in another order differ by rounding, which is no rank.
    ranks = rankdata(values.round(12), axis=1)
    return ranks - ranks.mean(1, keepdims=True)


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """Spearman over sets."""

    spearman: float
    interval: Interval
    "95 %, sets drawn again"


def correlation(
    measure: Sequence[float], by_results: Sequence[float], *, seed: int = 0
) -> Correlation | None:
    """A measure of the sets against their redundancy by results.

    None for fewer than four sets, where a set has no value, and where all have the same.
    """
    x, y = np.asarray(measure, dtype=float), np.asarray(by_results, dtype=float)
    both = np.stack([x, y])
    if len(x) < LEAST_SETS or not np.isfinite(both).all() or (np.ptp(both, axis=1) == 0).any():
        return None
    drawn = _drawn(len(x), seed).numpy()
    return Correlation(
        spearman=float(rank_correlations(x[None], y[None])[0]),
        interval=interval(torch.from_numpy(rank_correlations(x[drawn], y[drawn]))),
    )


def _drawn(n: int, seed: int) -> Int[Tensor, "draws n"]:
    """The sets of each draw, as often as they come."""
    counts = (resamples(n, seed=seed) * n).round().long()
    return torch.arange(n).repeat(len(counts)).repeat_interleave(counts.flatten()).reshape(-1, n)

"""How much sets of samples turn on in common, and what they would by chance.

    overlap(A -> B) = |F_A and F_B| / |F_A|        F_A the units that some sample of A has

It is 1 where B has all that A has, and asymmetric: a small set lies in a large one, not the other
way round. Two sets of one kind do not reach 1 either, since samples are few. Beside it stand

    dealt anew    the samples of both mixed and dealt to sets of the same sizes: what there would
                  be if A and B were of one kind
    halves        of one set, dealt into two halves
    random        |F_B| / |F|, if F_B were drawn among all units that there are

Source: Qwen-Scope, arXiv:2605.11887 (asymmetric overlap). Differs: what chance gives.

Axes: `sets`; `on` units that some set has; `draws`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy.cluster.hierarchy import average, leaves_list
from scipy.spatial.distance import squareform
from torch import Tensor

from saes.scope.coverage import Incidence
from saes.scope.item_results import rank_correlations

DRAWS = 50
DRAWS_AT_ONCE = 16
PERMUTATIONS = 999


def overlaps(sets: Sequence[Incidence]) -> Float[Tensor, "sets sets"]:
    """overlap(A -> B) of every pair, rows A; NaN where A has nothing."""
    present = _present(sets).double()
    return (present @ present.T) / present.sum(1, keepdim=True)


def _present(sets: Sequence[Incidence]) -> Bool[Tensor, "sets on"]:
    on, column = torch.cat([one.unit for one in sets]).unique(return_inverse=True)
    found = torch.zeros(len(sets), len(on), dtype=torch.bool)
    for row, columns in zip(found, column.split([len(s.unit) for s in sets]), strict=True):
        row[columns] = True
    return found


def dealt_anew(
    a: Incidence, b: Incidence, *, draws: int = DRAWS, seed: int = 0
) -> Float[Tensor, "draws both"]:
    """overlap(A -> B) and overlap(B -> A) where the samples of both are mixed and dealt again."""
    both = Incidence(
        sample=torch.cat([a.sample, b.sample + a.samples]),
        unit=torch.cat([a.unit, b.unit]),
        samples=a.samples + b.samples,
        units=a.units,
    )
    return _dealt(both, a.samples, draws, seed)


def halves(a: Incidence, *, draws: int = DRAWS, seed: int = 0) -> Float[Tensor, " draws"]:
    """The overlap of random halves of a set, mean of both directions; NaN for a single sample."""
    return _dealt(a, a.samples // 2, draws, seed).mean(1)


def _dealt(both: Incidence, first: int, draws: int, seed: int) -> Float[Tensor, "draws both"]:
    """Overlaps between the first samples of random orders and the rest."""
    on, column = both.unit.unique(return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    counts = column.bincount(minlength=len(on))[:, None]
    found = []
    for start in range(0, draws, DRAWS_AT_ONCE):
        at_once = min(DRAWS_AT_ONCE, draws - start)
        orders = [torch.randperm(both.samples, generator=generator) for _ in range(at_once)]
        in_first = (torch.stack(orders, 1) < first).long()
        of_first = torch.zeros(len(on), at_once, dtype=torch.long)
        of_first.index_add_(0, column, in_first[both.sample])
        one, other = of_first > 0, of_first < counts
        shared = (one & other).sum(0).double()
        found.append(torch.stack([shared / one.sum(0), shared / other.sum(0)], 1))
    return torch.cat(found)


@dataclass(frozen=True, kw_only=True)
class Tree:
    """Sets joined two by two, the nearest first."""

    order: list[int]
    "of the sets, so that lines do not cross"
    merges: list[tuple[int, int, float]]
    "what is joined at which distance: sets by number, then what was joined before"


def tree_of(overlap: Float[Tensor, "sets sets"]) -> Tree:
    """Sets by average linkage; their distance is 1 less the mean of the overlaps both ways.

    Where a set has nothing its overlaps are 0. Source: Sokal & Michener 1958 (UPGMA).
    """
    if len(overlap) < 2:
        return Tree(order=[0] * len(overlap), merges=[])
    known = overlap.nan_to_num(0.0)
    distance = (1 - (known + known.T) / 2).clamp_min(0).fill_diagonal_(0)
    linkage = average(squareform(distance.numpy(), checks=False))
    return Tree(
        order=[int(i) for i in leaves_list(linkage)],
        merges=[(int(a), int(b), float(height)) for a, b, height, _ in linkage],
    )


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far two matrices of overlaps rank pairs of sets alike."""

    spearman: float
    p: float
    "share of orders of the sets in which one matrix agrees with the other as much"


def agreement(
    a: Float[Tensor, "sets sets"], b: Float[Tensor, "sets sets"], *, seed: int = 0
) -> Agreement | None:
    """Spearman over pairs of different sets, and Mantel's test; None for fewer than four sets.

    Source: Mantel 1967, The detection of disease clustering and a generalized regression approach.
    """
    n = len(a)
    pairs = ~torch.eye(n, dtype=torch.bool)
    if n < 4 or not (a[pairs].isfinite().all() and b[pairs].isfinite().all()):
        return None

    own_pairs = a[pairs].numpy()[None]

    def spearman(others: Sequence[Tensor]) -> NDArray[np.float64]:
        rows = torch.stack([other[pairs] for other in others])
        return rank_correlations(rows.numpy(), own_pairs)

    own, generator = float(spearman([b])[0]), torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n, generator=generator) for _ in range(PERMUTATIONS)]
    as_much = (spearman([b[order][:, order] for order in orders]) >= own - 1e-12).sum()
    return Agreement(spearman=own, p=(int(as_much) + 1) / (PERMUTATIONS + 1))

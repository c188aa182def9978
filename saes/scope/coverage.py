"""What a set of samples turns on, how redundant it is, and how few of the samples would do.

A unit is what a sample has or lacks: a feature that is on in it; as the simple baseline, a token.
Of N samples, of which k_i have unit i:

    distinct      m, the units that some sample has
    redundancy    R = N / m
    growth        E[m(n)] = sum_i 1 - C(N - k_i, n) / C(N, n),  of n samples drawn at random

R grows with N whatever the samples are, so sets are compared at an equal n, R(n) = n / E[m(n)].

Source: redundancy, Qwen-Scope, arXiv:2605.11887; the expectation is ecology's rarefaction,
Hurlbert 1971, The nonconcept of species diversity. Differs: what random samples give, and R at an
equal number of them, stand beside R.

Axes: `entries` pairs of a sample and a unit that it has; `on` units that some sample has.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saes.evaluation.bootstrap import Interval, interval
from saes.scope.activity import Activity

ORDERS = 200
"Random orders of the samples, for intervals."
POINTS = 40
"Sizes at most at which a curve is kept."
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Incidence:
    """Which units each sample has: entries by sample, then by unit, each once."""

    sample: Int[Tensor, " entries"]
    unit: Int[Tensor, " entries"]
    samples: int
    units: int
    "that there are, on or not"

    @classmethod
    def of_activity(cls, activity: Activity) -> "Incidence":
        """Units are features, samples texts."""
        return cls(
            sample=activity.text,
            unit=activity.feature,
            samples=len(activity),
            units=activity.n_features,
        )

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]], units: int) -> "Incidence":
        """Units are tokens, samples rows of them."""
        distinct = [sorted(set(row)) for row in rows]
        lengths = torch.tensor([len(row) for row in distinct], dtype=torch.long)
        return cls(
            sample=torch.arange(len(rows)).repeat_interleave(lengths),
            unit=torch.tensor([u for row in distinct for u in row], dtype=torch.long),
            samples=len(rows),
            units=units,
        )

    def part(self, start: int, stop: int) -> "Incidence":
        """The samples from number `start` up to `stop`."""
        of = (self.sample >= start) & (self.sample < stop)
        return Incidence(
            sample=self.sample[of] - start,
            unit=self.unit[of],
            samples=stop - start,
            units=self.units,
        )

    def without(self, removed: Bool[Tensor, " units"]) -> "Incidence":
        """The same samples, some units left out of what there is."""
        keep = ~removed[self.unit]
        return Incidence(
            sample=self.sample[keep],
            unit=self.unit[keep],
            samples=self.samples,
            units=self.units - int(removed.sum()),
        )

    def counts(self) -> Int[Tensor, " on"]:
        """In how many samples each unit is, of those that some sample has."""
        return self.unit.unique(return_counts=True)[1]


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Distinct units by the number of samples, drawn at random."""

    sizes: list[int]
    expected: list[float]
    "exact"
    intervals: list[Interval]
    "95 % of random orders"


@dataclass(frozen=True, kw_only=True)
class Subset:
    """Few samples that have most of the units, beside as many random ones."""

    samples: list[int]
    "in the order in which they were taken"
    distinct: int
    random: float
    "distinct units that as many random samples have on average: exact"
    random_interval: Interval
    random_size: int
    "random samples that have as many as were asked for, on average"


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """One set of samples."""

    samples: int
    distinct: int
    share: float
    "of the units that there are"
    redundancy: float | None
    "None where no sample has a unit"
    growth: Growth
    subset: Subset | None


def coverage(incidence: Incidence, *, keep: float = 0.95, seed: int = 0) -> Coverage:
    """What a set covers, how it grows, and a subset that keeps the share `keep` of it."""
    n, counts = incidence.samples, incidence.counts()
    m = len(counts)
    grown = random_orders(incidence, seed=seed)
    sizes = sorted({round(x) for x in np.linspace(1, n, min(n, POINTS))})
    return Coverage(
        samples=n,
        distinct=m,
        share=m / incidence.units if incidence.units else 0.0,
        redundancy=n / m if m else None,
        growth=Growth(
            sizes=sizes,
            expected=[expected_distinct(counts, n, size) for size in sizes],
            intervals=[interval(grown[:, size - 1].double()) for size in sizes],
        ),
        subset=_beside_random(incidence, counts, grown, keep) if m else None,
    )


def _beside_random(
    incidence: Incidence, counts: Int[Tensor, " on"], grown: Int[Tensor, "orders n"], keep: float
) -> Subset:
    chosen, covered = greedy_subset(incidence, keep=keep)
    return Subset(
        samples=chosen,
        distinct=covered[-1],
        random=expected_distinct(counts, incidence.samples, len(chosen)),
        random_interval=interval(grown[:, len(chosen) - 1].double()),
        random_size=size_for(counts, incidence.samples, keep),
    )


def expected_distinct(counts: Int[Tensor, " on"], samples: int, size: int) -> float:
    """Distinct units that `size` of `samples` samples have on average, drawn without replacement.

        E[m(n)] = sum_i 1 - C(N - k_i, n) / C(N, n)

    Raises `ValueError` for more samples than there are.
    """
    if not 0 <= size <= samples:
        raise ValueError(f"{size} of {samples} samples cannot be drawn")
    values, times = counts.double().unique(return_counts=True)
    log_factorial = torch.arange(samples + 1).double().add(1).lgamma()
    left = samples - values.long()
    possible = left >= size
    some = left[possible]
    missed = torch.zeros_like(values)
    missed[possible] = (
        log_factorial[some]
        - log_factorial[some - size]
        - log_factorial[samples]
        + log_factorial[samples - size]
    ).exp()
    return float(((1 - missed) * times).sum())


def size_for(counts: Int[Tensor, " on"], samples: int, share: float) -> int:
    """The fewest random samples that have the share `share` of all units, on average."""
    wanted = share * len(counts) - ROUNDING
    low, high = 0, samples
    while low < high:
        middle = (low + high) // 2
        if expected_distinct(counts, samples, middle) >= wanted:
            high = middle
        else:
            low = middle + 1
    return low


def random_orders(
    incidence: Incidence, *, orders: int = ORDERS, seed: int = 0
) -> Int[Tensor, "orders samples"]:
    """Distinct units among the first 1, 2, ... samples of random orders."""
    n = incidence.samples
    on, column = incidence.unit.unique(return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(orders, n, dtype=torch.long)
    for row in found:
        place = torch.randperm(n, generator=generator)
        first = torch.full((len(on),), n).scatter_reduce_(
            0, column, place[incidence.sample], "amin"
        )
        row += first.bincount(minlength=n).cumsum(0)
    return found


def greedy_subset(
    incidence: Incidence, *, keep: float = 1.0, at_least: int = 0
) -> tuple[list[int], list[int]]:
    """Samples, each the one that adds most units to those before it, until the share is kept.

    And until there are `at_least` so many. Also how many units they have together after each. Of
    equals the first is taken. However many have been taken, they have at least 1 - 1/e of what the
    best as many have.

    Source: Nemhauser, Wolsey & Fisher 1978, An analysis of approximations for maximizing
    submodular set functions; gains are computed again only where they may lead, Minoux 1978.
    """
    on, column = incidence.unit.unique(return_inverse=True)
    lengths = incidence.sample.bincount(minlength=incidence.samples)
    of = np.split(column.numpy(), lengths.cumsum(0)[:-1].numpy())
    covered = np.zeros(len(on), dtype=bool)
    heap = [(-len(units), sample) for sample, units in enumerate(of)]
    heapq.heapify(heap)
    chosen: list[int] = []
    reached: list[int] = []
    wanted, total = keep * len(on) - ROUNDING, 0
    while heap and (total < wanted or len(chosen) < at_least):
        _, sample = heapq.heappop(heap)
        # What it was worth before is a bound on what it is worth.
        gain = int((~covered[of[sample]]).sum())
        if heap and (-gain, sample) > heap[0]:
            heapq.heappush(heap, (-gain, sample))
            continue
        covered[of[sample]] = True
        total += gain
        chosen.append(sample)
        reached.append(total)
    return chosen, reached

"""What a set covers, how it grows, and which part of it would do: against counting."""

import math
from itertools import combinations

import pytest
import torch

from saes.scope.coverage import (
    Incidence,
    coverage,
    expected_distinct,
    greedy_subset,
    random_orders,
    size_for,
)


def drawn(samples, units, share=0.3, seed=0):
    """Which of `units` units each sample has."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, units, generator=generator) < share


def incidence(has):
    sample, unit = has.nonzero(as_tuple=True)
    return Incidence(sample=sample, unit=unit, samples=len(has), units=has.shape[1])


def best(has, size):
    """The most units that any `size` samples have."""
    return max(int(has[list(some)].any(0).sum()) for some in combinations(range(len(has)), size))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_expectation_is_the_mean_over_every_subset(seed):
    has = drawn(8, 12, 0.25, seed)
    counts = incidence(has).counts()
    for size in range(9):
        every = [has[list(some)].any(0).sum() for some in combinations(range(8), size)]
        exact = float(torch.stack(every).double().mean())
        assert expected_distinct(counts, 8, size) == pytest.approx(exact, abs=1e-10)
    with pytest.raises(ValueError, match="9 of 8 samples cannot be drawn"):
        expected_distinct(counts, 8, 9)


def test_many_samples_are_no_overflow():
    counts = torch.tensor([1, 5, 3000])
    found = expected_distinct(counts, 10_000, 100)
    exact = sum(1 - math.comb(10_000 - k, 100) / math.comb(10_000, 100) for k in counts.tolist())
    assert found == pytest.approx(exact, rel=1e-9)


def test_random_orders_grow_as_is_expected():
    has = drawn(30, 200, 0.05)
    one = incidence(has)
    orders = random_orders(one, orders=2000, seed=1).double()
    counts = one.counts()
    assert (orders[:, -1] == len(counts)).all()
    for size in (1, 7, 20):
        column = orders[:, size - 1]
        error = 4 * float(column.std()) / math.sqrt(2000)
        assert abs(float(column.mean()) - expected_distinct(counts, 30, size)) < error
    generator = torch.Generator().manual_seed(1)
    place = torch.randperm(30, generator=generator)
    by_place = has[place.argsort()]
    assert orders[0].tolist() == [float(by_place[: n + 1].any(0).sum()) for n in range(30)]


def test_the_size_for_a_share_is_the_smallest():
    counts = incidence(drawn(25, 60, 0.1)).counts()
    size = size_for(counts, 25, 0.8)
    assert expected_distinct(counts, 25, size) >= 0.8 * len(counts)
    assert expected_distinct(counts, 25, size - 1) < 0.8 * len(counts)
    assert size_for(counts, 25, 1.0) == 25


def plainly(has, keep):
    """Greedy without a heap: every gain anew at every step."""
    chosen, reached, covered = [], [], torch.zeros(has.shape[1], dtype=torch.bool)
    while covered.sum() < keep * has.any(0).sum() - 1e-9:
        gains = (has & ~covered).sum(1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        covered |= has[chosen[-1]]
        reached.append(int(covered.sum()))
    return chosen, reached


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_greedy_subset_is_greedy_and_nearly_the_best(seed, share):
    has = drawn(11, 30, share, seed)
    chosen, reached = greedy_subset(incidence(has))
    assert (chosen, reached) == plainly(has, 1.0)
    for size, have in enumerate(reached, 1):
        assert (1 - 1 / math.e) * best(has, size) <= have <= best(has, size)


def test_a_subset_keeps_its_share_beside_random_ones():
    has = drawn(40, 300, 0.03, 3)
    one = incidence(has)
    found = coverage(one, keep=0.9, seed=2)
    m = int(has.any(0).sum())
    assert (found.distinct, found.samples) == (m, 40)
    assert (found.redundancy, found.share) == (40 / m, m / 300)
    subset = found.subset
    assert 0.9 * m <= subset.distinct == int(has[subset.samples].any(0).sum())
    assert has[subset.samples[:-1]].any(0).sum() < 0.9 * m
    assert subset.random_interval[0] < subset.random < subset.random_interval[1]
    assert subset.random < subset.distinct
    assert len(subset.samples) < subset.random_size
    growth = found.growth
    assert (growth.sizes[0], growth.sizes[-1], growth.expected[-1]) == (1, 40, m)
    assert all(
        low <= mean <= high
        for mean, (low, high) in zip(growth.expected, growth.intervals, strict=True)
    )


def test_more_samples_are_taken_where_more_are_asked_for():
    has = torch.tensor([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]]).bool()
    assert greedy_subset(incidence(has)) == ([0, 2], [2, 3])
    assert greedy_subset(incidence(has), at_least=3) == ([0, 2, 1], [2, 3, 3])
    assert greedy_subset(incidence(has), keep=0.0, at_least=9)[0] == [0, 2, 1, 3]


def test_parts_and_what_is_left_of_them():
    has = drawn(9, 20)
    one = incidence(has)
    part = one.part(2, 6)
    assert torch.equal(part.counts(), has[2:6].sum(0)[has[2:6].any(0)])
    removed = torch.arange(20) < 5
    left = part.without(removed)
    assert (left.units, left.samples) == (15, 4)
    assert len(left.counts()) == int(has[2:6, 5:].any(0).sum())
    empty = coverage(part.without(torch.ones(20, dtype=torch.bool)))
    assert (empty.distinct, empty.redundancy, empty.subset, empty.share) == (0, None, None, 0.0)


def test_tokens_count_once_in_a_sample():
    one = Incidence.of_rows([[5, 3, 5], [], [3]], 9)
    assert (one.sample.tolist(), one.unit.tolist()) == ([0, 0, 2], [3, 5, 3])
    assert (one.samples, one.units, one.counts().tolist()) == (3, 9, [2, 1])

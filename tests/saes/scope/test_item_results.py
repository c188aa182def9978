"""Redundancy by what models got right, and subsets that stand for a set."""

import pytest
import torch
from scipy.stats import spearmanr

from saes.scope.item_results import (
    SHARES,
    checked,
    checked_at_random,
    correlation,
    redundancy_by_results,
)


def results(items, models, seed=0, spread=0.8):
    """Models from weak to strong."""
    generator = torch.Generator().manual_seed(seed)
    skill = torch.linspace(0.5 - spread / 2, 0.5 + spread / 2, models)
    return (torch.rand(items, models, generator=generator) < skill).float()


def test_a_subset_is_held_against_all_items():
    correct = results(40, 6)
    found = checked(correct, [1, 5, 7, 30])
    some, whole = correct[[1, 5, 7, 30]].mean(0), correct.mean(0)
    assert found.error == pytest.approx(float((some - whole).abs().mean()))
    assert found.agreement == pytest.approx(spearmanr(some, whole).statistic)
    every = checked(correct, range(40))
    assert (every.error, every.agreement) == (0.0, pytest.approx(1.0))


def test_random_subsets_average_over_draws():
    correct = results(30, 5)
    found = checked_at_random(correct, 6, draws=300)
    low, high = found.error_interval
    assert 0 < low < found.error < high
    more = checked_at_random(correct, 24, draws=300)
    assert more.error < found.error
    assert more.agreement > found.agreement
    # The mean error of one model follows from its accuracy alone.
    one = correct[:, :1]
    exact = []
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        exact.append(
            abs(float(one[torch.randperm(30, generator=generator)[:6]].mean() - one.mean()))
        )
    alone = checked_at_random(one, 6, draws=300)
    assert alone.error == pytest.approx(sum(exact) / 300, abs=1e-6)
    assert (alone.agreement, alone.agreement_interval) == (None, None)


def test_redundancy_is_the_mean_agreement_over_sizes():
    correct = results(20, 4, seed=1)
    by_size = [
        checked_at_random(correct, max(1, round(s * 20)), draws=50).agreement for s in SHARES
    ]
    found = redundancy_by_results(correct, draws=50)
    assert found == pytest.approx(sum(by_size) / len(by_size))
    assert redundancy_by_results(correct[:, :2]) is None
    # Items that all say the same are redundant; equal models have no ranks.
    alike = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(20, 1)
    assert redundancy_by_results(alike) == pytest.approx(1.0)
    assert redundancy_by_results(torch.ones(20, 4)) is None


def test_the_correlation_over_sets_has_an_interval():
    x = [1.0, 2.0, 3.0, 5.0, 8.0, 9.0]
    found = correlation(x, [v**2 for v in x])
    assert found.spearman == pytest.approx(1.0)
    turned = correlation(x, [-v for v in x])
    assert turned.spearman == pytest.approx(-1.0)
    mixed = correlation(x, [3.0, 1.0, 4.0, 1.5, 5.0, 9.0])
    assert mixed.spearman == pytest.approx(spearmanr(x, [3.0, 1.0, 4.0, 1.5, 5.0, 9.0]).statistic)
    assert mixed.interval[0] < mixed.spearman < mixed.interval[1]
    assert correlation(x[:3], x[:3]) is None
    assert correlation([float("nan"), *x[1:]], x) is None
    assert correlation([2.0] * 6, x) is None

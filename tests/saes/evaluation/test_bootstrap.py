"""Intervals cover the truth as often as they say, and are absent where they mean nothing."""

import pytest
import torch

from saes.evaluation.bootstrap import ratio, ratio_interval


def blocks(n, seed):
    """Errors and variances of blocks of text whose true ratio is 2."""
    generator = torch.Generator().manual_seed(seed)
    below = 1 + torch.rand(n, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, generator=generator, dtype=torch.float64)
    return below * (2 + noise), below


def test_the_ratio_is_of_sums_not_a_mean_of_ratios():
    above, below = torch.tensor([1.0, 6.0]), torch.tensor([1.0, 2.0])
    assert ratio(above, below) == pytest.approx(7 / 3)
    assert ratio(above, torch.tensor([1.0, -1.0])) is None


def test_nineteen_of_twenty_intervals_hold_the_truth():
    ends = [ratio_interval(*blocks(60, seed)) for seed in range(300)]
    share = sum(low <= 2 <= high for low, high in ends) / 300
    assert 0.90 < share < 0.98


def test_four_times_the_blocks_halve_the_interval():
    def width(n):
        ends = [ratio_interval(*blocks(n, seed)) for seed in range(40)]
        return sum(high - low for low, high in ends)

    assert width(50) / width(200) == pytest.approx(2, rel=0.1)


def test_the_interval_follows_the_scale_and_the_seed():
    above, below = blocks(30, 0)
    low, high = ratio_interval(above, below)
    assert low < ratio(above, below) < high
    assert ratio_interval(-3 * above, below) == pytest.approx([-3 * high, -3 * low])
    assert ratio_interval(above, below) == [low, high]
    assert ratio_interval(above, below, seed=1) != [low, high]


def test_no_interval_from_one_block_or_of_nothing():
    one = torch.ones(1, dtype=torch.float64)
    assert ratio_interval(one, one) is None
    three = torch.ones(3, dtype=torch.float64)
    assert ratio_interval(three, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)) is None

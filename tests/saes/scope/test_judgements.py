"""Scores of judges that are known: who guesses, who knows, who is silent."""

import pytest
import torch

from saes.scope.judgements import mean_interval, score

TRUTH = [True, False] * 10


def test_who_always_says_yes_is_worth_a_half_and_who_knows_one():
    yes = score(TRUTH, [True] * 20)
    assert (yes.balanced_accuracy, yes.f1) == (0.5, pytest.approx(2 / 3))
    knows = score(TRUTH, TRUTH)
    assert (knows.balanced_accuracy, knows.f1) == (1.0, 1.0)
    assert knows.interval is not None
    # Ten right of ten leave room for a judge who is right nine times in ten.
    assert knows.interval[0] < 0.9
    assert knows.interval[1] == 1.0
    assert score(TRUTH, [not t for t in TRUTH]).balanced_accuracy == 0.0


def test_who_always_says_yes_is_worth_a_half_however_uneven_the_kinds_are():
    assert score([True] * 9 + [False], [True] * 10).balanced_accuracy == 0.5


def test_what_is_not_answered_counts_in_neither():
    said = [True, False, None, None] + [None] * 16
    found = score(TRUTH, said)
    assert (found.answered, found.asked, found.balanced_accuracy) == (2, 20, 1.0)
    assert score(TRUTH, [None] * 20).balanced_accuracy is None
    assert score([True, True], [True, True]).balanced_accuracy is None


def test_intervals_cover_a_judge_who_is_right_three_times_in_four():
    generator, inside = torch.Generator().manual_seed(0), 0
    for _ in range(200):
        right = torch.rand(20, generator=generator) < 0.75
        found = score(TRUTH, [t == r for t, r in zip(TRUTH, right.tolist(), strict=True)])
        assert found.interval is not None
        inside += found.interval[0] <= 0.75 <= found.interval[1]
    assert inside >= 185


def test_a_mean_over_features_has_an_interval_over_them():
    mean, interval = mean_interval([0.5, 0.7, 0.9])
    assert mean == pytest.approx(0.7)
    assert interval is not None
    assert interval[0] == pytest.approx(0.5, abs=0.05)
    assert interval[0] < mean < interval[1]
    assert mean_interval([]) == (None, None)
    assert mean_interval([0.5]) == (0.5, None)

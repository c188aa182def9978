"""How well scores tell two kinds apart, against scikit-learn and draws counted one by one."""

import pytest
import torch
from sklearn.metrics import f1_score, roc_auc_score

from saes.evaluation.bootstrap import resamples
from saes.scope.separation import auroc, figures_of, true_positives
from tests.saes.scope.test_classify import drawn


def test_figures_are_those_of_scikit_learn():
    scores, positive = (drawn(50) * 10).round(), drawn(50, seed=1) < 0.4
    found = figures_of([scores.double()], positive, [4.5])
    assert found.auroc == pytest.approx(roc_auc_score(positive, scores))
    assert found.f1 == pytest.approx(f1_score(positive, scores > 4.5))
    assert found.auroc_interval[0] < found.auroc < found.auroc_interval[1]
    assert found.f1_interval[0] < found.f1 < found.f1_interval[1]


def test_intervals_are_of_resampled_texts_and_draws_counted_one_by_one():
    """Each resample written out: its texts repeated, judged by the draw that it took."""
    positive = torch.arange(250) < 30
    several = [drawn(250, seed=s).double() + 0.3 * positive for s in range(3)]
    thresholds = [0.6, 0.7, 0.8]
    for scores, limits in ((several[:1], thresholds[:1]), (several, thresholds)):
        found = figures_of(scores, positive, limits)
        shares = resamples(30), resamples(220, seed=1)
        which = torch.randint(len(scores), (2000,), generator=torch.Generator().manual_seed(2))
        rows = []
        for i, of_positive, of_negative in zip(which.tolist(), *shares, strict=True):
            counts = torch.cat([30 * of_positive, 220 * of_negative]).round().long()
            some = scores[i].repeat_interleave(counts)
            of = positive.repeat_interleave(counts)
            hits, wrong = (some[kind] > limits[i] for kind in (of, ~of))
            f1 = 2 * hits.sum() / (hits.sum() + wrong.sum() + 30)
            rows.append((float(f1), auroc(some, of), true_positives(some, of)))
        for interval, values in zip(
            (found.f1_interval, found.auroc_interval, found.tpr_interval),
            torch.tensor(rows, dtype=torch.float64).T,
            strict=True,
        ):
            ends = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))
            assert interval == pytest.approx(ends.tolist(), abs=1e-6)
        alone = [figures_of([s], positive, [t]) for s, t in zip(scores, limits, strict=True)]
        for name in ("f1", "auroc", "tpr", "accuracy"):
            mean = sum(getattr(one, name) for one in alone) / len(alone)
            assert getattr(found, name) == pytest.approx(mean, abs=1e-12)


def test_an_interval_reaches_over_draws_that_differ():
    positive = torch.arange(60) < 30
    good, bad = (drawn(60) + sign * 0.5 * positive.double() for sign in (1, -1))
    both = figures_of([good, bad], positive, [0.7, 0.7])
    for one in (figures_of([scores], positive, [0.7]) for scores in (good, bad)):
        inner, outer = one.auroc_interval, both.auroc_interval
        assert outer[1] - outer[0] > 2 * (inner[1] - inner[0])
        assert outer[0] < inner[1]
        assert inner[0] < outer[1]
        assert figures_of([good if one.auroc > 0.5 else bad] * 4, positive, [0.7] * 4) == one


def test_one_negative_text_in_a_hundred_may_pass():
    scores = torch.cat([torch.arange(200.0), torch.tensor([197.5, 198.5, 10.0])])
    positive = torch.arange(203) >= 200
    # Two of two hundred: 199 and 198.
    assert true_positives(scores, positive) == pytest.approx(2 / 3)
    few = torch.cat([torch.arange(50.0), torch.tensor([48.5, 49.5])])
    assert true_positives(few, torch.arange(52) >= 50) == 0.5

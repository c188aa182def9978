"""How well scores tell positive texts from negative ones, with intervals.

    F1, accuracy        at a threshold
    AUROC               P(a positive text's score is above a negative one's), ties half
    TPR at 1 % FPR      the share of positive texts above a threshold that 1 % of negative ones pass

Axes: `texts`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saes.evaluation.bootstrap import Interval, interval, resamples

FALSE_POSITIVES = 0.01
TextScores = Float[Tensor, " texts"]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How well texts are told apart; intervals are of 95 %."""

    f1: float
    auroc: float
    tpr: float
    "at 1 % FPR"
    accuracy: float
    f1_interval: Interval
    auroc_interval: Interval
    tpr_interval: Interval


def figures_of(
    scores: Sequence[TextScores],
    positive: Bool[Tensor, " texts"],
    thresholds: Sequence[float],
    *,
    seed: int = 0,
) -> Figures:
    """How well scores tell texts apart, on average over draws of the texts learned from.

        figure     mean over the draws i of  m(scores_i, all texts)
        interval   2.5 and 97.5 % of  m(scores_i(r), texts_r)  over the resamples r

    `scores` and `thresholds` have one entry for each draw. i(r) is one of them at random, texts_r
    the positive texts and the negative ones drawn again, each among themselves. So an interval is
    of what one draw gives on other such texts, and more draws do not narrow it; of a single draw it
    covers the texts judged on alone.
    """
    figures = [_exact(s, positive, t) for s, t in zip(scores, thresholds, strict=True)]
    f1, auroc, tpr, accuracy = (sum(column) / len(figures) for column in zip(*figures, strict=True))
    n = int(positive.sum()), int((~positive).sum())
    of_positive, of_negative = (resamples(count, seed=seed + i) for i, count in enumerate(n))
    draws = min(len(of_positive), len(of_negative))
    generator = torch.Generator().manual_seed(seed + len(n))
    which = torch.randint(len(scores), (draws,), generator=generator)
    resampled = torch.zeros(3, draws, dtype=torch.float64)
    for i, (some, threshold) in enumerate(zip(scores, thresholds, strict=True)):
        of = (which == i).nonzero().squeeze(-1)
        resampled[:, of] = _resampled(some, positive, threshold, of_positive[of], of_negative[of])
    intervals = [interval(values) for values in resampled]
    return Figures(
        f1=f1,
        auroc=auroc,
        tpr=tpr,
        accuracy=accuracy,
        f1_interval=intervals[0],
        auroc_interval=intervals[1],
        tpr_interval=intervals[2],
    )


def _exact(
    scores: TextScores, positive: Bool[Tensor, " texts"], threshold: float
) -> tuple[float, float, float, float]:
    """F1, AUROC, TPR and accuracy."""
    says = scores > threshold
    hits, wrong = says[positive].double().sum(), says[~positive].double().sum()
    return (
        float(_f1(hits, wrong, int(positive.sum()))),
        auroc(scores, positive),
        true_positives(scores, positive),
        float((says == positive).double().mean()),
    )


def _resampled(
    scores: TextScores,
    positive: Bool[Tensor, " texts"],
    threshold: float,
    of_positive: Float[Tensor, "draws positive"],
    of_negative: Float[Tensor, "draws negative"],
) -> Float[Tensor, "3 draws"]:
    """F1, AUROC and TPR with each text counted by its share of a resample of its kind."""
    says, above = (scores > threshold).double(), _above(scores, positive)
    n_positive, n_negative = above.shape
    hits, wrong = (
        n_positive * (of_positive @ says[positive]),
        n_negative * (of_negative @ says[~positive]),
    )
    aurocs = ((of_positive @ above) * of_negative).sum(1)
    negative, order = scores[~positive].sort(descending=True)
    passed = (n_negative * of_negative[:, order]).cumsum(1)
    # The first negative text at which more have passed than may; half a text against rounding.
    last = (passed < _allowed(n_negative) + 0.5).sum(1)
    found = scores[positive] > negative[last][:, None]
    return torch.stack([_f1(hits, wrong, n_positive), aurocs, (of_positive * found).sum(1)])


def _f1(hits: Tensor, wrong: Tensor, positive: int) -> Tensor:
    return 2 * hits / (hits + wrong + positive)


def auroc(scores: TextScores, positive: Bool[Tensor, " texts"]) -> float:
    """P(a positive text's score is above a negative one's), ties half."""
    return float(_above(scores, positive).mean())


def _above(
    scores: TextScores, positive: Bool[Tensor, " texts"]
) -> Float[Tensor, "positive negative"]:
    difference = scores[positive].double()[:, None] - scores[~positive].double()
    return (difference.sign() + 1) / 2


def true_positives(scores: TextScores, positive: Bool[Tensor, " texts"]) -> float:
    """The share of positive texts above the lowest threshold that 1 % of negative texts pass.

    With fewer than a hundred negative texts none of them may pass.
    """
    negative = scores[~positive].sort(descending=True).values
    return float((scores[positive] > negative[_allowed(len(negative))]).double().mean())


def _allowed(negative: int) -> int:
    """How many of so many negative texts may pass."""
    return int(FALSE_POSITIVES * negative)

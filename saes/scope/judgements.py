"""How well a judge that goes by an explanation tells right from wrong, with intervals.

    balanced accuracy   (share of the right ones called right + share of the wrong called wrong) / 2
    F1                  2 hits / (right ones + called right)

A judge that always says yes has balanced accuracy 0.5, whatever it is asked; its F1 is 2/3 where
half are right. What is not answered counts in neither, and is counted.

The interval of balanced accuracy joins Wilson's of the two shares (the square-root rule of
Newcombe 1998; Zou & Donner 2008 for sums), so that it does not shrink to nothing where all are
right; that of F1 draws both kinds again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saes.evaluation.bootstrap import Interval, interval, resamples
from saes.scope.contrast import wilson

Verdict = bool | None
"What a judge says of one thing: right, wrong, or nothing that can be read."


@dataclass(frozen=True, kw_only=True)
class JudgementScore:
    """Judgements held against the truth."""

    balanced_accuracy: float | None
    "None where one kind was not answered at all"
    interval: Interval
    "of it, 95 %"
    f1: float | None
    f1_interval: Interval
    answered: int
    asked: int


def score(truth: Sequence[bool], said: Sequence[Verdict]) -> JudgementScore:
    """What was said of some things, held against what they are."""
    pairs = [(t, s) for t, s in zip(truth, said, strict=True) if s is not None]
    hits = torch.tensor([float(s) for t, s in pairs if t], dtype=torch.float64)
    wrong = torch.tensor([float(s) for t, s in pairs if not t], dtype=torch.float64)
    if not len(hits) or not len(wrong):
        return JudgementScore(
            balanced_accuracy=None,
            interval=None,
            f1=None,
            f1_interval=None,
            answered=len(pairs),
            asked=len(truth),
        )
    of_hits, of_wrong = resamples(len(hits)), resamples(len(wrong), seed=1)
    draws = min(len(of_hits), len(of_wrong))
    f1s = _f1(of_hits[:draws] @ hits * len(hits), of_wrong[:draws] @ wrong * len(wrong), len(hits))
    called = int(hits.sum()), len(wrong) - int(wrong.sum())
    counts = len(hits), len(wrong)
    return JudgementScore(
        balanced_accuracy=sum(c / n for c, n in zip(called, counts, strict=True)) / 2,
        interval=_mean_of_shares(called, counts),
        f1=float(_f1(hits.sum(), wrong.sum(), len(hits))),
        f1_interval=interval(f1s),
        answered=len(pairs),
        asked=len(truth),
    )


def _f1(hits: Tensor, wrong: Tensor, right: int) -> Tensor:
    return 2 * hits / (hits + wrong + right)


def _mean_of_shares(counts: tuple[int, int], n: tuple[int, int]) -> list[float]:
    """The 95 % interval of the mean of two shares, from Wilson's of each."""
    shares = [c / m for c, m in zip(counts, n, strict=True)]
    ends = [wilson(c, m) for c, m in zip(counts, n, strict=True)]
    mean = sum(shares) / 2
    below = math.hypot(*(s - e[0] for s, e in zip(shares, ends, strict=True))) / 2
    above = math.hypot(*(e[1] - s for s, e in zip(shares, ends, strict=True))) / 2
    return [max(0.0, mean - below), min(1.0, mean + above)]


def mean_interval(values: Sequence[float]) -> tuple[float | None, Interval]:
    """The mean of a figure over features, and its 95 % interval: features are drawn again."""
    if not values:
        return None, None
    x = torch.tensor(list(values), dtype=torch.float64)
    return float(x.mean()), interval(resamples(len(x)) @ x)

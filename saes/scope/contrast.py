"""Features that tell two sets of texts apart, and what chance alone would give.

    share of texts     P(on | positive) - P(on | negative)
    mean activation    (mean of positive - mean of negative) / standard deviation over all texts

of every feature, ranked by size. Among thousands of features some differ by chance: labels are
shuffled, and beside each feature stands how many features differ as much as it does under shuffled
labels, on average. Intervals are of 95 %: of a difference of shares Newcombe's (1998, method 10),
of one of means by drawing the texts of each set again.

Source: Qwen-Scope, arXiv:2605.11887 (contrast of two sets). Differs: intervals and shuffled labels
stand beside each number.

Axes: as in `saes.scope.activity`; `on` features that are on in some text; `shuffles`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.nodes import Node
from saes.evaluation.bootstrap import Interval, interval, resamples
from saes.scope.activity import Activity, difference_weights

RankedBy = Literal["share", "mean"]
WAYS: tuple[RankedBy, ...] = ("share", "mean")
SHUFFLES = 200
SHUFFLES_AT_ONCE = 16
ROUNDING = 1e-9
Z = 1.959963984540054
"Standard deviations at the end of a 95 % interval."


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One feature between two sets of texts."""

    node: Node
    on_positive: float
    "share of the positive texts in which it is on"
    on_negative: float
    difference: float
    "of the shares"
    interval: tuple[float, float]
    "of this difference, 95 %"
    mean_positive: float
    "activation, mean over the texts of each one's mean over its tokens"
    mean_negative: float
    effect: float
    "difference of the means in standard deviations"
    effect_interval: Interval
    "of this difference, 95 %"
    by_chance: float
    "features that differ as much under shuffled labels, on average"


@dataclass(frozen=True, kw_only=True)
class ContrastResult:
    """The features that differ most between two sets of texts."""

    by: RankedBy
    positive: int
    "texts"
    negative: int
    features_on: int
    "in some text: those that were compared"
    chance: float
    "size of difference that one shuffle in twenty reaches somewhere"
    found: tuple[Contrast, ...]


def contrast(
    activity: Activity,
    positive: Bool[Tensor, " texts"],
    *,
    by: RankedBy = "share",
    top: int = 20,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> ContrastResult:
    """The `top` features by the size of their difference.

    Raises `ValueError` where one of the sets has fewer than two texts.
    """
    n = int(positive.sum()), int((~positive).sum())
    if min(n) < 2:
        raise ValueError(
            f"{n[0]} positive and {n[1]} negative texts: a contrast needs two of each at least"
        )
    features, column = activity.feature.unique(return_inverse=True)
    values = {"share": torch.ones_like(activity.mean), "mean": activity.mean}
    sums = TextSums(activity.text, column, values[by].double(), len(features), len(activity))
    weight = difference_weights(positive)[:, None]
    found = (sums.weighted(weight) * sums.scale(by))[:, 0]
    # What is equal but for rounding stands in the order of the features, on any machine.
    steps = (found.abs() / ROUNDING).round()
    order = steps.argsort(descending=True, stable=True)[:top]
    null = shuffled(
        sums, weight, found[order].abs(), scale=sums.scale(by), seed=seed, shuffles=shuffles
    )
    return ContrastResult(
        by=by,
        positive=n[0],
        negative=n[1],
        features_on=len(features),
        chance=null.largest,
        found=tuple(_described(activity, positive, features[order], column, order, null.as_large)),
    )


@dataclass(frozen=True)
class TextSums:
    """A number for each text and feature, sparse, to be added up over texts."""

    text: Int[Tensor, " entries"]
    column: Int[Tensor, " entries"]
    "of the feature, among those that are on"
    value: Float[Tensor, " entries"]
    features: int
    texts: int

    def weighted(self, weight: Float[Tensor, "texts ways"]) -> Float[Tensor, "on ways"]:
        """Sums over texts, each text counting by its weight, in several ways at once."""
        found = weight.new_zeros(self.features, weight.shape[1])
        return found.index_add_(0, self.column, self.value[:, None] * weight[self.text])

    def scale(self, by: RankedBy) -> Float[Tensor, "on 1"] | float:
        """What turns a difference into the unit that features are ranked in."""
        if by == "share":
            return 1.0
        first, second = (
            torch.zeros(self.features).double().index_add_(0, self.column, x) / self.texts
            for x in (self.value, self.value.square())
        )
        spread = (second - first.square()).clamp_min(0).sqrt()
        return torch.where(spread > 0, 1 / spread.clamp_min(1e-30), 0.0)[:, None]


@dataclass(frozen=True)
class Null:
    """What shuffled labels give."""

    largest: float
    "that one shuffle in twenty reaches somewhere"
    as_large: list[float]
    "for each size, how many features reach it in a shuffle, on average"


def shuffled(
    sums: TextSums,
    weight: Float[Tensor, "texts 1"],
    sizes: Float[Tensor, " top"],
    *,
    scale: Float[Tensor, "on 1"] | float = 1.0,
    shuffles: int = SHUFFLES,
    seed: int = 0,
) -> Null:
    """What sums over texts are where their weights are dealt out anew, beside some `sizes`."""
    generator = torch.Generator().manual_seed(seed)
    largest, counts = [], torch.zeros_like(sizes)
    for first in range(0, shuffles, SHUFFLES_AT_ONCE):
        ways = range(first, min(first + SHUFFLES_AT_ONCE, shuffles))
        orders = [torch.randperm(len(weight), generator=generator) for _ in ways]
        found = (sums.weighted(torch.cat([weight[o] for o in orders], 1)) * scale).abs()
        largest += found.amax(0).tolist()
        ordered = found.flatten().sort().values
        # What equals a size but for rounding is as large.
        counts += len(ordered) - torch.searchsorted(ordered, sizes - ROUNDING)
    worst = sorted(largest)
    at = min(len(worst) - 1, math.ceil(0.95 * len(worst)) - 1) if worst else None
    return Null(math.nan if at is None else worst[at], (counts / max(1, shuffles)).tolist())


def _described(
    activity: Activity,
    positive: Bool[Tensor, " texts"],
    features: Int[Tensor, " top"],
    column: Int[Tensor, " entries"],
    order: Int[Tensor, " top"],
    by_chance: Sequence[float],
) -> list[Contrast]:
    n = int(positive.sum()), int((~positive).sum())
    on = positive[activity.text]
    means = torch.zeros(len(order), len(activity)).double()
    counts = []
    for row, own in zip(means, order.tolist(), strict=True):
        of = column == own
        row[activity.text[of]] = activity.mean[of].double()
        counts.append((int(on[of].sum()), int((~on[of]).sum())))
    effects = standardised_differences(means, positive)
    return [
        Contrast(
            node=activity.node(feature),
            on_positive=count[0] / n[0],
            on_negative=count[1] / n[1],
            difference=count[0] / n[0] - count[1] / n[1],
            interval=difference_interval(count, n),
            mean_positive=float(row[positive].mean()),
            mean_negative=float(row[~positive].mean()),
            effect=float(effect[0]),
            effect_interval=interval(effect[1:]),
            by_chance=chance,
        )
        for feature, count, row, effect, chance in zip(
            features.tolist(), counts, means, effects, by_chance, strict=True
        )
    ]


def standardised_differences(
    x: Float[Tensor, "rows texts"], positive: Bool[Tensor, " texts"]
) -> Float[Tensor, "rows draws"]:
    """(mean of positive - mean of negative) / standard deviation over all texts, 0 where that is 0.

    First of the texts as they are, then of each set drawn again, the deviation anew each time.
    """
    share = float(positive.double().mean())
    first, second = drawn_means(torch.stack([x, x.square()]), positive)
    middle, square = share * first + (1 - share) * second
    spread = (square - middle.square()).clamp_min(0).sqrt()
    return torch.where(spread > 0, (first[0] - second[0]) / spread.clamp_min(1e-30), 0.0)


def drawn_means(
    x: Float[Tensor, "*rows texts"], positive: Bool[Tensor, " texts"]
) -> list[Float[Tensor, "*rows draws"]]:
    """Means over the positive and over the negative texts: as they are, then drawn again."""
    found = []
    for seed, kind in enumerate((positive, ~positive)):
        n = int(kind.sum())
        as_they_are = torch.full((1, n), 1 / n, dtype=torch.float64)
        found.append(x[..., kind] @ torch.cat([as_they_are, resamples(n, seed=seed)]).T)
    return found


def wilson(count: int, n: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    share, square = count / n, Z**2
    middle = (share + square / (2 * n)) / (1 + square / n)
    half = Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n**2))
    return middle - half, middle + half


def difference_interval(counts: tuple[int, int], n: tuple[int, int]) -> tuple[float, float]:
    """Newcombe's 95 % interval of the difference of two shares."""
    (low, high), (low_other, high_other) = (wilson(c, m) for c, m in zip(counts, n, strict=True))
    share, other = counts[0] / n[0], counts[1] / n[1]
    difference = share - other
    return (
        difference - math.hypot(share - low, high_other - other),
        difference + math.hypot(high - share, other - low_other),
    )

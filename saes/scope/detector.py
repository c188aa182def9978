"""A detector: a few features, of one dictionary or of several, that fire for something in a text.

    score of a text     the largest, over the features, of  activation / its usual one
    says so             where the score is above the threshold

With a threshold of zero it is an OR of the features. The usual activation of a feature is its mean
over the positive texts, of those that it was chosen on, in which it is on.

Source: Qwen-Scope, arXiv:2605.11887 (features ranked by the difference of shares, OR of the first
K). Differs: strength counts, and the threshold comes from texts that chose nothing else.

Axes: as in `saes.scope.activity`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.nodes import Node
from saes.scope.activity import Activity, difference_weights

Across = Literal["one", "several"]
"Whether features are of one dictionary or of several."


@dataclass(frozen=True, kw_only=True)
class Detector:
    """Features that fire for something, and from which score on they count."""

    nodes: tuple[Node, ...]
    "best first"
    usual: tuple[float, ...]
    threshold: float

    def scores(self, activity: Activity) -> Float[Tensor, " texts"]:
        """Of each text; 0 where none of its features is on."""
        return self.by_feature(activity).amax(1)

    def by_feature(self, activity: Activity) -> Float[Tensor, "texts nodes"]:
        """What each feature gives each text."""
        column = torch.full((activity.n_features,), -1)
        column[[activity.number(node) for node in self.nodes]] = torch.arange(len(self.nodes))
        of = column[activity.feature]
        own = of >= 0
        found = torch.zeros(len(activity), len(self.nodes), dtype=torch.float64)
        found[activity.text[own], of[own]] = activity.largest[own].double()
        found /= torch.tensor(self.usual, dtype=torch.float64)
        return found.clamp_min(0)


def chosen_detectors(
    activity: Activity,
    positive: Bool[Tensor, " texts"],
    sizes: Sequence[int],
    *,
    across: Across = "one",
) -> list[Detector | None]:
    """For each k the k features of most difference, of the dictionary where these differ most.

    Across `several` they are the k of most difference of all dictionaries together.

    P(on | positive) - P(on | negative), and of equals, which few texts have many of, the difference
    of the mean activations in standard deviations. Thresholds are 0. None where no feature is on in
    more positive texts than negative ones.
    """
    differences, effects = share_differences(activity, positive), _effects(activity, positive)
    spans = list(zip(activity.starts.values(), activity.widths, strict=True))
    ranked: list[tuple[Tensor, Tensor, Tensor]] = []
    for start, width in spans if across == "one" else [(0, activity.n_features)]:
        of, effect = differences[start : start + width], effects[start : start + width]
        order = effect.argsort(descending=True, stable=True)
        order = order[of[order].round(decimals=9).argsort(descending=True, stable=True)]
        order = order[: max(sizes)]
        order = order[of[order] > 0]
        ranked.append((order + start, of[order], effect[order]))
    usual = _usual(activity, positive)
    found = []
    for k in sizes:
        # Where fewer than k are more often on with the positive texts, the others count as 0.
        best = max(
            (one for one in ranked if len(one[0])),
            key=lambda one: (round(float(one[1][:k].sum()) / k, 9), float(one[2][:k].sum()) / k),
            default=None,
        )
        found.append(None if best is None else _detector(activity, best[0][:k], usual))
    return found


def _usual(activity: Activity, positive: Bool[Tensor, " texts"]) -> Float[Tensor, " features"]:
    """The mean of each feature's largest activations over the positive texts that have it on."""
    of = positive[activity.text].double()
    return _total(activity, activity.largest * of) / _total(activity, of).clamp_min(1)


def _detector(
    activity: Activity, features: Int[Tensor, " k"], usual: Float[Tensor, " features"]
) -> Detector:
    kept = features[usual[features] > 0].tolist()
    return Detector(
        nodes=tuple(activity.node(feature) for feature in kept),
        usual=tuple(usual[kept].tolist()),
        threshold=0.0,
    )


def share_differences(
    activity: Activity, positive: Bool[Tensor, " texts"]
) -> Float[Tensor, " features"]:
    """P(on | positive) - P(on | negative) of every feature."""
    return _total(activity, difference_weights(positive)[activity.text])


def _effects(activity: Activity, positive: Bool[Tensor, " texts"]) -> Float[Tensor, " features"]:
    """Differences of the mean of the largest activations, in standard deviations over texts."""
    n, value = len(activity), activity.largest.double()
    first, second = (_total(activity, x) / n for x in (value, value.square()))
    spread = (second - first.square()).clamp_min(0).sqrt()
    difference = _total(activity, value * difference_weights(positive)[activity.text])
    return torch.where(spread > 1e-12, difference / spread.clamp_min(1e-12), 0.0)


def _total(activity: Activity, value: Float[Tensor, " entries"]) -> Float[Tensor, " features"]:
    """The sum of each feature's entries, in float64."""
    found = torch.zeros(activity.n_features, dtype=torch.float64)
    return found.index_add_(0, activity.feature, value)


def best_threshold(scores: Float[Tensor, " texts"], positive: Bool[Tensor, " texts"]) -> float:
    """The threshold of the largest F1, half way between two scores; the lowest of equals."""
    values = scores.double().unique()
    between = (values[1:] + values[:-1]) / 2
    candidates = torch.cat([values[:1] - 1, between])
    says = scores[:, None] > candidates
    hits = (says & positive[:, None]).sum(0).double()
    f1 = 2 * hits / (says.sum(0) + positive.sum())
    return float(candidates[int(f1.argmax())])

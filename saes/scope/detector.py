"""A detector: a few features, of one dictionary or of several, that fire for something in a text.

    score of a text     the largest, over the features, of  activation / its usual one
    says so             where the score is above the threshold

With a threshold of zero it is an OR of the features. The usual activation of a feature is its mean
over the positive texts, of those that it was chosen on, in which it is on.

Source: Qwen-Scope, arXiv:2605.11887 (features ranked by the difference of shares, OR of the first
K). Differs: strength counts, and the threshold comes from texts that chose nothing else.

Axes: as in `saes.scope.activity`.
"""

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
        found = torch.zeros(len(activity), len(self.nodes), dtype=torch.float64)
        for column, (node, usual) in enumerate(zip(self.nodes, self.usual, strict=True)):
            of = activity.feature == activity.number(node)
            found[activity.text[of], column] = activity.largest[of].double() / usual
        return found.clamp_min(0)


def chosen_detector(
    activity: Activity, positive: Bool[Tensor, " texts"], k: int, *, across: Across = "one"
) -> Detector | None:
    """The `k` features of most difference, of the dictionary where these differ most on average.

    Across `several` they are the `k` of most difference of all dictionaries together.

    P(on | positive) - P(on | negative), and of equals, which few texts have many of, the difference
    of the mean activations in standard deviations. The threshold is 0. None where no feature is on
    in more positive texts than negative ones.
    """
    differences, effects = share_differences(activity, positive), _effects(activity, positive)
    best: tuple[tuple[float, float], Int[Tensor, " k"]] | None = None
    spans = list(zip(activity.starts.values(), activity.widths, strict=True))
    for start, width in spans if across == "one" else [(0, activity.n_features)]:
        of, effect = differences[start : start + width], effects[start : start + width]
        order = effect.argsort(descending=True, stable=True)
        order = order[of[order].round(decimals=9).argsort(descending=True, stable=True)][:k]
        order = order[of[order] > 0]
        # Where fewer than k are more often on with the positive texts, the others count as 0.
        rank = round(float(of[order].sum()) / k, 9), float(effect[order].sum()) / k
        if len(order) and (best is None or rank > best[0]):
            best = rank, order + start
    if best is None:
        return None
    usual = []
    for feature in best[1].tolist():
        of = (activity.feature == feature) & positive[activity.text]
        usual.append(float(activity.largest[of].double().mean()))
    kept = [(f, u) for f, u in zip(best[1].tolist(), usual, strict=True) if u > 0]
    return Detector(
        nodes=tuple(activity.node(feature) for feature, _ in kept),
        usual=tuple(u for _, u in kept),
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

"""Features ranked by what they do to a metric, on two sets of texts or on a set of prompts.

A feature is set to its reference at every token, alone: to zero in texts and in prompts without
a patch, else to its value on the patch. Its effect is what the metric is then, less what it was.

    two sets   mean effect on the positive texts - mean effect on the negative ones
    prompts    mean effect

Estimates rank all features (`circuits.attribution`); the `top` of them are measured by running
the model (`circuits.ablation.exact_effects`), and the interval is of that: 95 %, texts drawn again.
Beside them stand as many features drawn at random, each from the dictionary of one of the top
and on in about as many texts, and for two sets what shuffled labels give, as in
`saes.scope.contrast`.

Units are those of the metric; positive means that the move raises it (more, in positive texts).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.exact_effects import exact_effects
from circuits.analysis import Analysis
from circuits.attribution.effects import node_effects
from circuits.attribution.estimators import ESTIMATORS
from circuits.attribution.node_effects import NodeEffects
from circuits.attribution.state import BatchState, batches, each
from circuits.discovery.config import DiscoverConfig
from circuits.features.named import Named, key_of
from circuits.features.search import SCHEMA
from circuits.graph import rounded
from circuits.metrics.metric import on_clean
from circuits.metrics.texts import encoded_texts, text_metric
from circuits.verification.estimator_agreement import agreement
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, counting, silent
from saes.evaluation.bootstrap import Interval, interval, resamples
from saes.scope.activity import LONGEST, difference_weights
from saes.scope.alike import alike
from saes.scope.contrast import SHUFFLES, TextSums, drawn_means, shuffled
from saes.suite import Suite


def text_analysis(
    model: TransformerBridge,
    suite: Suite,
    texts: Sequence[str],
    metric: str,
    *,
    estimator: str = "patching",
    longest: int = LONGEST,
) -> Analysis:
    """An analysis of texts, a text a batch, in which features are set to zero."""
    prompts = encoded_texts(texts, model.tokenizer, longest=longest)
    config = DiscoverConfig(
        reference="zero", positions="sum", batch_size=1, estimator=estimator, nodes=1
    )
    suite = suite.fitting(model)
    bound = text_metric(metric, model, suite, prompts)
    analysis = Analysis.of(model, suite, prompts, config, metric=bound)
    # A text of its own length: beside a long one, a short one would be padding mostly.
    states = batches(model, suite, prompts, reference="zero", batch_size=1, columns="own")
    return replace(analysis, edited=states)


@dataclass(frozen=True)
class _Effects:
    """Estimated effects of all features on each text, sparse."""

    names: tuple[str, ...]
    key: Int[Tensor, " on"]
    "of each feature changed on some text"
    sums: TextSums
    clean: Float[Tensor, " texts"]
    "the metric"

    def nodes(self, columns: Sequence[int]) -> list[Node]:
        key = self.key[list(columns)]
        return NodeEffects(self.names, key, torch.zeros(len(key)).double()).nodes()

    def counts(self) -> Int[Tensor, " on"]:
        """On how many texts each feature changes."""
        return self.sums.column.bincount(minlength=self.sums.features)

    def of(self, columns: Sequence[int]) -> Float[Tensor, "nodes texts"]:
        found = torch.zeros(len(columns), self.sums.texts, dtype=torch.float64)
        for row, column in enumerate(columns):
            own = self.sums.column == column
            found[row, self.sums.text[own]] = self.sums.value[own]
        return found


def by_effect(
    analysis: Analysis,
    named: Named,
    *,
    metric: str,
    positive: Bool[Tensor, " texts"] | None = None,
    top: int = 20,
    seed: int = 0,
    report: Report = silent,
) -> dict[str, Any]:
    """The features of most effect on the metric: of difference, where texts are of two kinds.

    Raises `ValueError` where no feature changes, and for fewer than two texts of a kind.
    """
    n = len(analysis.prompts)
    if positive is not None and min(int(positive.sum()), int((~positive).sum())) < 2:
        raise ValueError("a contrast of effects needs two texts of each kind at least")
    effects = _estimated(analysis, report)
    weight = torch.full((n,), 1 / n).double() if positive is None else difference_weights(positive)
    found = effects.sums.weighted(weight[:, None])[:, 0]
    order = found.abs().argsort(descending=True, stable=True)[:top]
    columns = order.tolist()
    drawn = _random(effects, columns, seed)
    nodes = effects.nodes([*columns, *drawn])
    exact = _exact(analysis, nodes, report)
    estimates = effects.of([*columns, *drawn])
    ends = _intervals(exact, positive)
    null = None
    if positive is not None:
        null = shuffled(effects.sums, weight[:, None], found[order].abs(), seed=seed)
    labels = named.of(nodes)
    counts = effects.counts()

    def row(i: int, column: int) -> dict[str, Any]:
        return {
            "feature": key_of(nodes[i]),
            "label": labels[nodes[i]],
            "texts_on": int(counts[column]),
            "estimate": rounded(float(estimates[i] @ weight)),
            "exact": rounded(float(exact[i] @ weight)),
            "interval": _ends(ends[i]),
        } | _by_kind(exact[i], positive)

    rows = [row(i, column) for i, column in enumerate(columns)]
    for i, of in enumerate(rows):
        of["by_chance"] = None if null is None else rounded(null.as_large[i])
    random = [row(len(columns) + i, column) for i, column in enumerate(drawn)]
    return {
        "schema": SCHEMA,
        "how": "effect",
        "metric": metric,
        "estimator": analysis.config.estimator,
        "reference": analysis.config.reference,
        "texts": {"prompts": n} if positive is None else _counts(positive),
        "metric_on_clean": _by_kind(effects.clean, positive) or {"all": _mean(effects.clean)},
        "features_on": effects.sums.features,
        "chance": None if null is None else rounded(null.largest),
        "shuffles": None if null is None else SHUFFLES,
        # Of what is shown: n times the weights, as agreement takes the mean over texts.
        "agreement": agreement(estimates * (n * weight), exact * (n * weight)),
        "found": rows,
        "random": {
            "features": random,
            "mean_size": _size(random),
            "mean_size_of_found": _size(rows),
        },
    }


@torch.no_grad()
def _exact(
    analysis: Analysis, nodes: Sequence[Node], report: Report
) -> Float[Tensor, "nodes texts"]:
    done = counting(report, "exact effects", len(analysis.prompts))

    def measured(state: BatchState) -> Float[Tensor, "nodes batch"]:
        found = exact_effects(analysis, state, nodes)
        done(len(state.rows))
        return found

    return torch.cat(each(analysis.states, measured), 1)


def _estimated(analysis: Analysis, report: Report) -> _Effects:
    """By the analysis' estimator; each batch is one text."""
    estimator = ESTIMATORS[analysis.config.estimator]
    done = counting(report, "effects", len(analysis.prompts))

    def estimated(state: BatchState) -> tuple[NodeEffects, Tensor]:
        found = node_effects(analysis, state, estimator.gradients(analysis, state))
        found = found.where(found.feature >= 0)
        if estimator.exact:
            found = found.with_effects(exact_effects(analysis, state, found.nodes()).sum(1))
        done(len(state.rows))
        return found, on_clean(analysis.metric, state.logits, state.rows).detach().double().cpu()

    parts, clean = zip(*each(analysis.states, estimated), strict=True)
    every = NodeEffects.one_after_another(parts)
    if not len(every):
        raise ValueError("no feature changes on any of the texts: there is no effect to rank")
    text = torch.arange(len(parts)).repeat_interleave(torch.tensor([*map(len, parts)]))
    key, column = every.key.unique(return_inverse=True)
    sums = TextSums(text, column, every.effect, len(key), len(analysis.prompts))
    return _Effects(every.names, key, sums, torch.cat(clean))


def _random(effects: _Effects, columns: Sequence[int], seed: int) -> list[int]:
    """For each of the top features another one of its dictionary, on in about as many texts."""
    generator, counts = Random(seed), effects.counts()
    name = NodeEffects(effects.names, effects.key, effects.key.double()).name
    taken, drawn = set(columns), []
    for column in columns:
        free = name == name[column]
        free[list(taken)] = False
        if pool := alike(counts, column, free):
            drawn.append(generator.choice(pool))
            taken.add(drawn[-1])
    return drawn


def _intervals(
    exact: Float[Tensor, "nodes texts"], positive: Bool[Tensor, " texts"] | None
) -> list[Interval]:
    """Of the mean, or of the difference of means, each kind of text drawn again."""
    if positive is None:
        draws = exact @ resamples(exact.shape[1]).T
    else:
        first, second = drawn_means(exact, positive)
        draws = (first - second)[:, 1:]
    return [interval(row) for row in draws]


def _ends(found: Interval) -> list[float | None] | None:
    return None if found is None else [rounded(end) for end in found]


def _by_kind(
    value: Float[Tensor, " texts"], positive: Bool[Tensor, " texts"] | None
) -> dict[str, Any]:
    """The mean over the texts of each kind; nothing where there is one kind."""
    if positive is None:
        return {}
    return {"positive": _mean(value[positive]), "negative": _mean(value[~positive])}


def _mean(value: Float[Tensor, " texts"]) -> float | None:
    return rounded(float(value.mean()))


def _counts(positive: Bool[Tensor, " texts"]) -> dict[str, int]:
    return {"positive": int(positive.sum()), "negative": int((~positive).sum())}


def _size(rows: Sequence[dict[str, Any]]) -> float | None:
    """The mean size of exact effects."""
    return rounded(sum(abs(row["exact"]) for row in rows) / len(rows)) if rows else None

"""Which features to steer along: those that were named, or chosen by what they read or write.

By activation: the largest difference of mean activation between positive and negative texts, in
standard deviations. By output score: of the candidates, those with the largest difference, the ones
with the largest output score (`saes.scope.output_score`).

Axes: `texts`; `k` promoted tokens.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.card import logit_tokens
from hooked_qwen.nodes import Node
from hooked_qwen.notices import notify
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.tokens import token_strings
from saes.edit_checks import check_node
from saes.examples.store import Store
from saes.scope.activity import read_through
from saes.scope.contrast import Contrast, contrast
from saes.scope.output_score import PROMOTED, input_score, largest_at_end, output_scores
from saes.scope.usage import Usage, usage_in, usage_of_store
from saes.suite import Suite

ChosenBy = Literal["activation", "output"]
Select = Literal["activation", "output", "both"]
SELECTS: Mapping[Select, tuple[ChosenBy, ...]] = {
    "activation": ("activation",),
    "output": ("output",),
    "both": ("output", "activation"),
}
SHOWN = 8
"Promoted tokens in a record."


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptTexts:
    """Texts with and without a concept."""

    texts: tuple[str, ...]
    positive: Bool[Tensor, " texts"]


@dataclass(frozen=True, kw_only=True)
class SteeringFeature:
    """A feature to steer along, and how it came to be one."""

    node: Node
    by: tuple[ChosenBy, ...]
    "empty for one that was named"
    output_score: float
    input_score: float | None
    "None where it is on in no text"
    promoted: tuple[str, ...]
    contrast: Contrast | None
    "between the examples, where they were compared"


@dataclass(frozen=True, kw_only=True, eq=False)
class SteeringFeatures:
    """The features to steer along, and what was read on the way."""

    features: tuple[SteeringFeature, ...]
    candidates: int
    "that were scored"
    usage: Usage
    at_neutral: Mapping[str, float]
    "largest activation of any feature at the neutral prompt's last token, by dictionary"
    means: Mapping[Site, Float[Tensor, "texts d"]]
    "of the examples, at each site that the features write; empty without examples"


def choose(
    model: TransformerBridge,
    suite: Suite,
    *,
    named: Sequence[Node],
    examples: ConceptTexts | None,
    usage_from: Sequence[str] | Store,
    select: Select = "both",
    top: int = 3,
    candidates: int = 30,
    neutral: str,
    seed: int = 0,
    report: Report = silent,
) -> SteeringFeatures:
    """The features `named`, or the `top` ones by each way of choosing.

    Activations are measured on texts, or taken from examples that were collected before.

    Raises `ValueError` for features that are not there, without examples to choose by, and where
    no feature is on more in positive texts.
    """
    for node in named:
        check_node(suite, node)
    if not named and examples is None:
        raise ValueError(
            "name features with --feature, or give --positive and --negative to choose them by"
        )
    if named:
        suite = only(suite, {node.site for node in named})
    found: dict[Node, Contrast] = {}
    means: Mapping[Site, Tensor] = {}
    if examples is not None:
        sites = [suite.writes_of(name)[0] for name in suite]
        reading = read_through(model, suite, examples.texts, sites=sites, report=report)
        means = reading.means
        if not named:
            every = contrast(
                reading.activity, examples.positive, by="mean", top=4 * candidates, seed=seed
            )
            more = [one for one in every.found if one.effect > 0][:candidates]
            found = {one.node: one for one in more}
    pool = list(named) or list(found)
    if not pool:
        raise ValueError("no feature is on more in positive texts than in negative ones")
    names = sorted({node.site for node in pool})
    usage = (
        usage_of_store(usage_from, suite, names=names, follow=pool)
        if isinstance(usage_from, Store)
        else usage_in(model, suite, usage_from, names=names, follow=pool, report=report)
    )
    at_neutral = largest_at_end(model, suite, names, neutral)
    scored = _scored(model, suite, pool, found, usage, neutral, at_neutral)
    features = scored if named else _selected(scored, select, top, usage)
    return SteeringFeatures(
        features=tuple(features),
        candidates=len(pool),
        usage=usage,
        at_neutral=at_neutral,
        means=means,
    )


def only(suite: Suite, names: set[str]) -> Suite:
    """The dictionaries called so."""
    return suite.exchanging([name for name in suite if name not in names], {})


def _scored(
    model: TransformerBridge,
    suite: Suite,
    pool: Sequence[Node],
    found: Mapping[Node, Contrast],
    usage: Usage,
    neutral: str,
    at_neutral: Mapping[str, float],
) -> list[SteeringFeature]:
    fitted = suite.fitting(model)
    promoted: dict[Node, Int[Tensor, " k"]] = {}
    for name in dict.fromkeys(node.site for node in pool):
        own = [node for node in pool if node.site == name]
        features = [int(node.feature) for node in own]
        tokens = logit_tokens(model, fitted[name], features, tokens=PROMOTED)
        promoted |= dict(zip(own, tokens.promoted, strict=True))
    stacked = torch.stack([promoted[node] for node in pool])
    outputs = output_scores(model, suite, pool, stacked, prompt=neutral, largest=at_neutral)
    return [
        SteeringFeature(
            node=node,
            by=(),
            output_score=output,
            input_score=input_score(usage.peaks.get(node, ()), promoted[node]),
            promoted=tuple(token_strings(model.tokenizer, promoted[node][:SHOWN].tolist())),
            contrast=found.get(node),
        )
        for node, output in zip(pool, outputs, strict=True)
    ]


def _selected(
    scored: Sequence[SteeringFeature], select: Select, top: int, usage: Usage
) -> list[SteeringFeature]:
    """The `top` by each way, each feature once; those without a maximum are left out."""
    there = [one for one in scored if usage.largest_of(one.node) != 0]
    if not there:
        raise ValueError(
            "none of the features that tell the examples apart is on in the text: give --text "
            "of the kind that they are on in, or none"
        )
    if left := len(scored) - len(there):
        notify(f"{left} of {len(scored)} candidates are on nowhere in the text, and are left out")
    by_output = sorted(there, key=lambda one: -one.output_score)
    ways: dict[ChosenBy, Sequence[SteeringFeature]] = {"output": by_output, "activation": there}
    by: dict[Node, list[ChosenBy]] = {}
    for way in SELECTS[select]:
        for one in ways[way][:top]:
            by.setdefault(one.node, []).append(way)
    of = {one.node: one for one in there}
    return [replace(of[node], by=tuple(found)) for node, found in by.items()]

"""Prompts drawn again with replacement: the effects of nodes on each, and the sets that are drawn.

The mean effect on a draw follows from the effects on each prompt, so no model is run for it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.effects import Gradients
from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.resume import DiscoveryParts
from circuits.discovery.tracing import effects_by_prompt
from circuits.prompts import EncodedPrompts
from hooked_qwen.progress import Report, silent


@dataclass(frozen=True, eq=False)
class EffectsOfEach:
    """Every node changed on some prompt, with its effect on each prompt."""

    nodes: NodeEffects
    "in the order of their keys"
    by_prompt: Float[Tensor, "prompts nodes"]


@dataclass(frozen=True)
class _EffectsByBatch(DiscoveryParts):
    """Notes what is found of each batch."""

    found: list[NodeEffects] = field(default_factory=list)

    def effects(self, batch: int, find: Any) -> tuple[NodeEffects, Gradients]:
        effects, _ = find()
        self.found.append(effects)
        # Gradients are of no use here, and there are as many as prompts.
        return effects, {}


def effects_of_each(analysis: Analysis, *, report: Report = silent) -> EffectsOfEach:
    """The effect of every feature and error on each prompt, by the analysis' own estimator."""
    parts = [part.inner() for part in _of_each(analysis, report)]
    key = torch.cat([part.key for part in parts]).unique()
    table = torch.zeros(len(parts), len(key), dtype=torch.float64)
    for row, part in zip(table, parts, strict=True):
        row[torch.searchsorted(key, part.key)] = part.effect
    return EffectsOfEach(NodeEffects(parts[0].names, key, table.mean(0)), table)


def _of_each(analysis: Analysis, report: Report) -> list[NodeEffects]:
    if analysis.config.method == "replacement":
        with torch.no_grad():
            return list(effects_by_prompt(ReplacedPrompts(analysis), report))
    one_by_one = replace(analysis.config, batch_size=1)
    kept = _EffectsByBatch()
    rank_nodes(replace(analysis, config=one_by_one, edited=None), parts=kept, report=report)
    return kept.found


def drawn_shares(n: int, draws: int, *, seed: int) -> Float[Tensor, "draws {n}"]:
    """The share of each prompt in each draw with replacement."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(n, (draws, n), generator=generator)
    counts = torch.zeros(draws, n, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts)) / n


def drawn(prompts: EncodedPrompts, rows: Int[Tensor, " drawn"]) -> EncodedPrompts:
    """Some prompts of a set, the same one more than once if asked for."""
    chosen = rows.tolist()

    def of(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[i] for i in chosen)

    return replace(
        prompts,
        prompts=of(prompts.prompts),
        clean=prompts.clean.rows(rows),
        patch=None if prompts.patch is None else prompts.patch.rows(rows),
        answer_ids=of(prompts.answer_ids),
        wrong_ids=of(prompts.wrong_ids),
        answer_weights=prompts.answer_weights and of(prompts.answer_weights),
        answer_texts=prompts.answer_texts and of(prompts.answer_texts),
        own=frozenset(place for place, i in enumerate(chosen) if i in prompts.own),
    )

"""The effect of every node on the metric, by any estimator, strongest first."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.exact_effects import exact_effects
from circuits.attribution.effects import (
    Estimator,
    Gradients,
    gradients_along_inputs,
    gradients_along_path,
    gradients_at_clean,
    node_effects,
)
from circuits.attribution.means import Means, mean_over
from circuits.attribution.node_effects import NodeEffects
from circuits.attribution.recorded import Reference
from circuits.attribution.spill import Spill
from circuits.attribution.state import KEPT, BatchState, States, batches
from circuits.discovery.resume import NOTHING_KEPT, Parts
from circuits.metrics.metric import Metric
from circuits.metrics.readout import MetricChoice, check_metric, metric_name
from circuits.prompts import EncodedPrompts, Positions
from hooked_qwen.progress import Report, counting, silent
from hooked_qwen.relevance import relevance_rules
from hooked_qwen.tokens import Bos
from saes.suite import Suite

Ranking = NodeEffects
"Every node that moves with its mean effect, strongest first."


@dataclass(frozen=True, kw_only=True)
class DiscoverConfig:
    """What is estimated, and what is kept of it."""

    metric: MetricChoice = "logit-difference"
    "logit-difference, log-probability, kl, feature:SITE/INDEX[@POSITION], a `Readout`, or any "
    "differentiable function of last logits and prompt numbers"
    estimator: Estimator = "ig"
    nodes: int = 100
    "features and errors kept at most, the strongest by the size of their mean effect"
    threshold: float | None = None
    "keep only those of them whose effect is at least this large, in units of the metric"
    influence: float | None = None
    "keep only the fewest of them that hold this share of the influence on the output"
    faithfulness: float | None = None
    "take the least needed of them away while the circuit stays as faithful as this"
    positions: Positions = "keep"
    bos: Bos = "auto"
    "what stands before each prompt: what the tokenizer adds, always its BOS token, or nothing"
    reference: Reference = "patch"
    steps: int = 10
    "points on the path of integrated gradients"
    edge_steps: int = 0
    "points on the way from clean to patch at which an edge's Jacobian is taken; 0: at clean"
    edge_threshold: float = 0.01
    "edges weaker than this share of the strongest feature's or error's effect are left out, but "
    "for those that connect a node to the rest"
    batch_size: int = 32
    "prompts run together; changes no result beyond rounding"

    def record(self) -> dict[str, Any]:
        """The configuration as files hold it, the metric by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {
            "metric": metric_name(self.metric)
        }

    def __post_init__(self) -> None:
        check_metric(self.metric)
        for name in ("nodes", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.edge_steps < 0:
            raise ValueError(f"edge_steps is {self.edge_steps}: expected 0 or more")
        if not 0 <= self.edge_threshold < math.inf:
            raise ValueError(f"edge_threshold is {self.edge_threshold}: expected 0 or more")
        if self.threshold is not None and not 0 <= self.threshold < math.inf:
            raise ValueError(f"threshold is {self.threshold}: expected a size, 0 or more")
        if self.faithfulness is not None and self.faithfulness <= 0:
            raise ValueError(f"faithfulness is {self.faithfulness}: expected more than 0")
        if self.influence is not None and not 0 < self.influence <= 1:
            raise ValueError(f"influence is {self.influence}: expected a share, over 0, at most 1")
        rules = ("threshold", "influence", "faithfulness")
        chosen = [name for name in rules if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"prune by one of {' and '.join(chosen)}, not by both")
        if self.estimator == "ig-inputs" and self.reference != "patch":
            raise ValueError(
                f"ig-inputs moves the embeddings to those of a patch, but the reference is "
                f"{self.reference}: use the estimator ig"
            )
        if self.metric == "kl" and self.estimator in ("patching", "relp"):
            raise ValueError(
                f"kl has no gradient at the clean run, which {self.estimator} takes: "
                "use the estimator ig, ig-inputs or exact"
            )


def rank_nodes(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    metric: Metric,
    *,
    config: DiscoverConfig,
    means: Means | None,
    states: Sequence[BatchState] | None = None,
    parts: Parts = NOTHING_KEPT,
    report: Report = silent,
) -> tuple[Ranking, Spill]:
    """Mean effect of every node that moves, strongest first, and each batch's gradients.

    `states` are those of `states_of`, where the caller has them; `parts` keeps what is done.
    """
    found: list[NodeEffects] = []
    gradients = Spill(keep=suite.room_for_states(KEPT))
    done = 0
    for batch, state in enumerate(states or states_of(model, suite, prompts, config, means)):

        def find(state: BatchState = state) -> tuple[NodeEffects, Gradients]:
            g = gradients_of(model, suite, state, metric, config)
            effects = node_effects(suite, state, g, positions=config.positions)
            if config.estimator == "exact":
                effects = _exact(model, suite, state, metric, effects, report)
            return effects, g

        effects, g = parts.effects(batch, find)
        gradients.append(g)
        found.append(effects)
        done += len(state.rows)
        report("node effects", done, len(prompts))
    return NodeEffects.sum(found).ranked(len(prompts)), gradients


def gradients_of(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    metric: Metric,
    config: DiscoverConfig,
) -> Gradients:
    """The metric's gradient to every site's tensor, as the estimator takes it.

    `exact` takes none; its edges are weighed by that of `ig`, the closest to it.
    """
    if config.estimator in ("ig", "exact"):
        return gradients_along_path(model, suite, state, metric, steps=config.steps)
    if config.estimator == "ig-inputs":
        return gradients_along_inputs(model, suite, state, metric, steps=config.steps)
    with rules_of(model, config):
        return gradients_at_clean(model, suite, state, metric)


def rules_of(model: TransformerBridge, config: DiscoverConfig) -> AbstractContextManager[None]:
    """By which rules gradients are taken: relevance rules for `relp`, else the model's own."""
    return relevance_rules(model) if config.estimator == "relp" else nullcontext()


def reference_means(
    model: TransformerBridge, suite: Suite, prompts: EncodedPrompts, config: DiscoverConfig
) -> Means | None:
    """Means over the clean prompts where they are the reference."""
    if config.reference != "mean":
        return None
    return mean_over(
        model,
        suite,
        prompts.clean,
        by_position=config.positions != "sum",
        batch_size=config.batch_size,
    )


def states_of(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    config: DiscoverConfig,
    means: Means | None,
) -> States:
    """The prompt set in batches, decomposed with the references that `config` names."""
    return batches(
        model,
        suite,
        prompts,
        reference=config.reference,
        batch_size=config.batch_size,
        means=means,
    )


def _exact(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    metric: Metric,
    moving: NodeEffects,
    report: Report,
) -> NodeEffects:
    """The same nodes with their exact effects."""
    tick = counting(report, "exact effects of a batch", len(moving))
    effects = exact_effects(model, suite, state, metric, moving.nodes(), report=tick)
    return moving.with_effects(effects.sum(1))

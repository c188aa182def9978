"""How much of a task do a few features of transcoders do? Everything else in the MLPs is left out.

The MLPs of some layers are replaced by their transcoders; all other layers run as they are, with
whatever that gives them. Of the features the first n stay as they arrive, the others are set to
zero, to their mean or to the patch. Errors, what transcoders miss of their MLPs, are

    out       zero: what is kept is all that the MLP writes beside the decoders' biases
    held      what they are on the clean prompt: with all features kept the model is itself

so that the score goes from `nothing` (no feature kept) to `replaced` (all of them). Rows:

    strongest features    ranked by the size of their mean effect, by the analysis' estimator
    strongest features, by the replacement graph     by their effect by all paths with patterns and
                          norms frozen, as `discover --method replacement` has it
    random features       of those that are on, or differ from the patch
    neurons, inside the MLPs        of the same layers, ranked as the features are
    untrained dictionaries          random weights of the same shape at the MLPs' outputs

What features are set to is the analysis' reference: ranked is what is then done. Positions are
those of the analysis too: summed, a feature is kept at every token.

Norm outliers (mostly the first token) keep their MLP's own output.

Source: Dunefsky et al. 2024, arXiv:2406.11944 (greater-than by the features of one layer, others
at zero, errors out). Differs: any layers, intervals over prompts, controls of other bases.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablation.faithfulness import ErrorBaseline, Measured, mean_measured, metrics_with
from circuits.analysis import Analysis
from circuits.attribution.node_effects import NodeEffects
from circuits.attribution.state import each
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.tracing import linear_effects
from circuits.graph import rounded
from circuits.metrics.metric import SiteMetric, on_clean
from circuits.metrics.readout import metric_name
from circuits.verification.faithfulness_curves import SIZES
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.hook_points import has_neurons
from hooked_qwen.progress import Report, counting, silent
from saes.evaluation.baselines import neurons_inside_mlps, untrained
from saes.evaluation.bootstrap import interval, resamples
from saes.nodes import NodeSet
from saes.suite import Suite
from transcoders.in_suite import transcoders_among

SCHEMA = "sufficiency/1"
FEATURES, RANDOM = "strongest features", "random features"
BY_GRAPH = "strongest features, by the replacement graph"
NEURONS, UNTRAINED = "neurons, inside the MLPs", "untrained dictionaries"
LISTED = 50
"Features that are named in the record, the strongest."
ERRORS: tuple[ErrorBaseline, ...] = ("out", "held")


@dataclass(frozen=True, kw_only=True)
class SufficiencyConfig:
    """What is put in the place of the MLPs, and how many of its features are kept."""

    layers: tuple[int, ...] | None = None
    "whose MLPs are replaced; all that have a transcoder by default"
    errors: str = "out"
    "`out` or `held`"
    sizes: tuple[int, ...] = SIZES
    "numbers of features that are kept; those that there are come last"
    draws: int = 3
    "random choices of features that their row is the mean of"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.errors not in ERRORS:
            raise ValueError(f"errors is {self.errors!r}: expected {' or '.join(ERRORS)}")
        if not self.sizes or min(self.sizes) < 1:
            raise ValueError(f"sizes are {self.sizes}: expected numbers of features, 1 or more")
        check_at_least(1, self, "draws")


@dataclass(frozen=True)
class _Basis:
    """Dictionaries in the place of the MLPs, and the orders in which their nodes are kept."""

    analysis: Analysis
    rows: dict[str, list[NodeEffects]]
    "by row, once for each draw"


def sufficiency(
    analysis: Analysis, config: SufficiencyConfig | None = None, *, report: Report = silent
) -> dict[str, Any]:
    """The metric against the number of kept features, beside every control, as one record.

    Raises `ValueError` where no layer asked for has a transcoder.
    """
    config = config or SufficiencyConfig()
    analysis = analysis.by(_suite_of(analysis.suite, config.layers))
    bases = _bases(analysis, config, report)
    longest = max(len(row[0]) for basis in bases for row in basis.rows.values())
    sizes = [*sorted({n for n in config.sizes if n < longest}), longest]
    count = sum(len(drawn) for basis in bases for drawn in basis.rows.values())
    tick = counting(report, "scores", count * len(sizes) * len(analysis.states))

    def measured(basis: _Basis, order: NodeEffects) -> Measured:
        kept = [order[:n].as_set() for n in sizes]
        return _scores(_values(basis.analysis, kept, config, tick))

    rows = {
        name: {"nodes": len(drawn[0])} | _record(mean_measured([measured(basis, o) for o in drawn]))
        for basis in bases
        for name, drawn in basis.rows.items()
    }
    return {
        "schema": SCHEMA,
        "metric": metric_name(analysis.config.metric),
        "to": analysis.config.reference,
        "errors": config.errors,
        "positions": analysis.config.positions,
        "estimator": analysis.config.estimator,
        "layers": sorted({site.layer for site in analysis.suite.reads}),
        "n_prompts": len(analysis.prompts),
        **_ends(analysis, config),
        "sizes": sizes,
        "rows": rows,
        "strongest": [
            {"id": str(node), "effect": rounded(effect)}
            for node, effect in bases[0].rows[FEATURES][0][:LISTED]
        ],
    }


def _suite_of(suite: Suite, layers: Sequence[int] | None) -> Suite:
    """The transcoders that read the MLPs of some layers."""
    there = {name: suite.reads_of(name)[0].layer for name in transcoders_among(suite)}
    asked = set(there.values()) if layers is None else set(layers)
    if missing := sorted(asked - set(there.values())):
        raise ValueError(
            f"there is no transcoder of layer {', '.join(map(str, missing))}: those that are there "
            f"are of {', '.join(map(str, sorted(set(there.values()))))}"
        )
    chosen = {name for name, layer in there.items() if layer in asked}
    found = suite.exchanging([name for name in suite if name not in chosen], {})
    for name in found:
        if len(found.writes_of(name)) > 1 and found[name].W_skip is not None:
            raise ValueError(
                f"{name} has a skip connection across layers: one that acts in its own is expected"
            )
    return found


def _bases(analysis: Analysis, config: SufficiencyConfig, report: Report) -> list[_Basis]:
    strongest = _ranked(analysis, "features", report)
    orders = [
        strongest[random.Random(seed).sample(range(len(strongest)), len(strongest))]
        for seed in range(config.seed, config.seed + config.draws)
    ]
    rows = {FEATURES: [strongest]}
    if _is_linear(analysis):
        rows[BY_GRAPH] = [_by_graph(analysis, report)]
    found = [_Basis(analysis, rows | {RANDOM: orders})]
    for name, suite in _controls(analysis).items():
        other = analysis.by(suite)
        found.append(_Basis(other, {name: [_ranked(other, name, report)]}))
    return found


def _controls(analysis: Analysis) -> dict[str, Suite]:
    model, suite = analysis.model, analysis.suite
    found = {UNTRAINED: untrained(suite)}
    if has_neurons(model, [site.layer for site in suite.writes]):
        found = {NEURONS: neurons_inside_mlps(model, suite)} | found
    return found


def _ranked(analysis: Analysis, row: str, report: Report) -> NodeEffects:
    ranking, _ = rank_nodes(
        analysis,
        report=lambda what, done, total, note="": report(f"{row}: {what}", done, total, note),
    )
    return ranking.features()


def _is_linear(analysis: Analysis) -> bool:
    """Whether a replacement graph has effects on this metric, of moving nodes to the reference."""
    config = analysis.config
    of_logits = config.metric != "kl" and not isinstance(analysis.metric, SiteMetric)
    return of_logits and config.reference != "mean"


def _by_graph(analysis: Analysis, report: Report) -> NodeEffects:
    config = analysis.config
    linear = DiscoverConfig(
        method="replacement",
        metric=config.metric,
        positions=config.positions,
        bos=config.bos,
        reference=config.reference,
        batch_size=config.batch_size,
    )
    return linear_effects(ReplacedPrompts(replace(analysis, config=linear)), report).features()


def _values(
    analysis: Analysis,
    kept: Sequence[NodeSet],
    config: SufficiencyConfig,
    tick: Callable[[int], None] = lambda done: None,
) -> Float[Tensor, "circuits prompts"]:
    """The metric of each prompt with these features kept."""
    return metrics_with(
        analysis,
        kept,
        analysis.config.reference,
        means=analysis.reference_means,
        errors=cast(ErrorBaseline, config.errors),
        report=tick,
    )


def _ends(analysis: Analysis, config: SufficiencyConfig) -> dict[str, Any]:
    """The model as it is, with its MLPs replaced, and with no feature kept."""
    metric = analysis.metric
    full = each(analysis.states, lambda s: on_clean(metric, s.logits, s.rows).double().cpu())
    every = torch.zeros(1, dtype=torch.long)
    errors = NodeSet({}, dict.fromkeys(analysis.suite.writes, every))
    both = _values(analysis, [errors.complement(), NodeSet.of([])], config)
    named = zip(
        ("model", "replaced", "nothing"), [torch.cat(full)[None], both[:1], both[1:]], strict=True
    )
    return {name: _one(_scores(values)) for name, values in named}


def _scores(values: Float[Tensor, "circuits prompts"]) -> Measured:
    shares = resamples(values.shape[1])
    return Measured(values.mean(-1), values @ shares.T)


def _one(score: Measured) -> dict[str, Any]:
    return {"score": rounded(float(score.values[0])), "interval": interval(score.draws[0])}


def _record(score: Measured) -> dict[str, Any]:
    low, high = score.confidence_interval()
    return {"score": score.record(), "low": low, "high": high}

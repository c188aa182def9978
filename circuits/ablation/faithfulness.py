"""Does a set of nodes carry the behaviour? Ablate everything else and look.

    faithfulness(C) = (m(C) - m(empty)) / (m(full) - m(empty))
    completeness(C) = faithfulness(not C)

m(C) is the mean metric with every node outside C ablated, at every site that has a dictionary;
m(empty) with all nodes ablated, m(full) with none. A circuit that carries all has faithfulness 1,
one that leaves nothing behind completeness 0. Values above 1 and below 0 are possible.

Source: Marks et al. 2024, arXiv:2403.19647.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.ablation.exact_effects import TOKENS_AT_ONCE
from circuits.analysis import Analysis
from circuits.attribution.means import Means
from circuits.attribution.state import BatchState, each
from circuits.baseline_values import BaselineValue, FixedBaselineValue
from circuits.graph import rounded
from circuits.metrics.metric import SiteMetric, on_clean, reading
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import resume
from hooked_qwen.sites import Site
from saes.evaluation.bootstrap import interval, resamples
from saes.features import Features
from saes.intervention import Baseline, Spared, reads_first, setting, skipped, touched
from saes.nodes import NodeSet
from saes.suite import Suite

ErrorBaseline = Literal["ablated", "out", "held"]
"""What errors outside a circuit are set to: what its features are; zero, so that dictionaries stand
in for what they write; or what they are on the clean prompt."""


@dataclass(frozen=True)
class Measured:
    """A number for each of some circuits: of all prompts, and of each bootstrap draw of them."""

    values: Float[Tensor, " circuits"]
    draws: Float[Tensor, "circuits draws"]

    def record(self) -> list[float | None]:
        """The numbers as a file holds them."""
        return [rounded(value) for value in self.values.tolist()]

    def confidence_interval(self) -> list[list[float | None]]:
        """Lower and upper bounds of the 95 % intervals; None where there are no draws."""
        found = [interval(draws) for draws in self.draws]
        return [[None if f is None else rounded(f[end]) for f in found] for end in (0, 1)]


@dataclass(frozen=True)
class FaithfulnessCurve:
    """Faithfulness and completeness of growing circuits."""

    faithfulness: Measured
    completeness: Measured
    "of no circuit where it was not measured"

    def record(self) -> dict[str, list[float | None]]:
        """Both, each with its 95 % intervals."""
        low, high = self.faithfulness.confidence_interval()
        completeness_low, completeness_high = self.completeness.confidence_interval()
        return {
            "faithfulness": self.faithfulness.record(),
            "low": low,
            "high": high,
            "completeness": self.completeness.record(),
            "completeness_low": completeness_low,
            "completeness_high": completeness_high,
        }


def baseline_of(
    suite: Suite, state: BatchState, to: BaselineValue, means: Means | None
) -> Baseline:
    """What ablated nodes of a batch are set to; for the mean it is that of `means`."""
    if to == "patch":
        return Baseline(
            {name: f.reference for name, f in state.features.items()},
            {site: error.reference for site, error in state.errors.items()},
            {},
        )
    return fixed_baseline(suite, to, means, device=state.rows.device, outlier=state.outlier)


def with_errors(suite: Suite, state: BatchState, base: Baseline, errors: ErrorBaseline) -> Baseline:
    """The baseline with its errors as `errors` says.

    Out or held, they are what the model's tensors have beside features, biases and skip
    connections, and norm outliers stay as they are whatever nodes are ablated to: no dictionary
    stands in for those.
    """
    if errors == "ablated":
        return base
    names = [name for name in suite if suite[name].W_skip is not None]
    left = {site: state.errors[site].error for site in suite.writes}
    if errors == "out":
        left = {site: torch.zeros_like(error[:, :1]) for site, error in left.items()}
    else:
        for name in names:
            for site, part in skipped(suite, name, state.values).items():
                left[site] = left[site] - part
    everywhere = torch.ones(1, dtype=torch.bool, device=state.rows.device)
    spared = {key: Spared(everywhere, outlier) for key, outlier in state.outlier.items()}
    return Baseline(base.features, left, spared, frozenset(names))


def fixed_baseline(
    suite: Suite,
    to: FixedBaselineValue,
    means: Means | None,
    *,
    device: torch.device,
    outlier: Mapping[str, Bool[Tensor, "batch pos"]] | None = None,
    limits: Mapping[Site, float] | None = None,
) -> Baseline:
    """What ablated nodes are set to where it is the same for every prompt: a mean, or zero.

    Norm outliers stay: those of `outlier`, by dictionary and by site written, where the prompts
    are known; else those that `limits` of `norm_limits` tell.
    """
    keys = [*suite, *map(str, suite.writes)]
    if to == "mean":
        assert means is not None, "ablation to the mean needs the means"
        at = {key: ~means.of_outliers[key] for key in keys}
        features = {name: f[None] for name, f in means.f.items()}
        errors = {site: error[None] for site, error in means.error.items()}
    else:
        features, errors = {}, {}
        at = dict.fromkeys(keys, torch.ones(1, dtype=torch.bool, device=device))
    spared = {
        key: Spared(
            at[key],
            None if outlier is None else outlier[key],
            None if limits is None else limits_at(suite, key, limits),
        )
        for key in keys
    }
    return Baseline(features, errors, spared)


def limits_at(suite: Suite, key: str, limits: Mapping[Site, float]) -> Mapping[Site, float]:
    """The limits at a site, and at those that its dictionaries read."""
    site = suite.writes_of(key)[0] if key in suite else Site.parse(key)
    read = {s for name in suite.writing(site) for s in suite.reads_of(name)}
    return {s: limits[s] for s in {site, *read}}


def metric_with(analysis: Analysis, kept: NodeSet, to: BaselineValue) -> Float[Tensor, " prompts"]:
    """The metric of each prompt with every node outside `kept` ablated."""
    return metrics_with(analysis, [kept], to)[0]


@torch.no_grad()
def metrics_with(
    analysis: Analysis,
    circuits: Sequence[NodeSet],
    to: BaselineValue,
    *,
    means: Means | None = None,
    errors: ErrorBaseline = "ablated",
    report: Callable[[int], None] = lambda done: None,
) -> Float[Tensor, "circuits prompts"]:
    """The metric of each prompt under each of `circuits`, several of them in one forward pass.

    A pass starts at the first layer where one of its circuits ablates anything. `means` are those
    of the analysis unless given; `report` is called with the circuits done since, one batch of
    prompts after another.
    """
    if to == "mean":
        means = means or analysis.means
    found = each(
        analysis.states,
        lambda state: _under(analysis, state, circuits, to, means, errors, report),
    )
    return torch.cat(found, 1).cpu()


def _under(
    analysis: Analysis,
    state: BatchState,
    circuits: Sequence[NodeSet],
    to: BaselineValue,
    means: Means | None,
    errors: ErrorBaseline,
    report: Callable[[int], None],
) -> Float[Tensor, "circuits batch"]:
    model, suite, metric = analysis.model, analysis.suite, analysis.metric
    n, values = len(state.rows), []
    base = with_errors(suite, state, baseline_of(suite, state, to, means), errors)
    together = max(1, TOKENS_AT_ONCE // state.clean.tokens.numel())
    for i in range(0, len(circuits), together):
        some = [circuit.complement() for circuit in circuits[i : i + together]]
        cut = [site.layer for ablated in some for site in touched(suite, ablated)]
        first = min(cut, default=max(site.layer for site in suite.writes))
        if isinstance(metric, SiteMetric) and metric.site.layer < first:
            # Nothing that is ablated reaches it.
            clean = on_clean(metric, state.logits, state.rows).double()
            values.append(clean.expand(len(some), n))
            report(len(some))
            continue
        index = state.every_row.repeat(len(some))
        edits = setting(
            model, suite, some, base.rows(index), plain=_plain(suite, state, index, first)
        )
        with reading(model, metric, edits) as read:
            start = state.values[Site("resid_pre", first)][index]
            final = resume(model, start, first, state.arguments.rows(index))
        found = read(final[:, -1:], state.rows[index])
        values.append(found.double().view(len(some), n))
        report(len(some))
    return torch.cat(values)


def _plain(
    suite: Suite, state: BatchState, index: Int[Tensor, " rows"], first: int
) -> dict[str, Features]:
    """The clean run's features of dictionaries that a pass from layer `first` on does not read.

    Some write before they have read; what others read comes before.
    """
    known = (
        name
        for name in suite
        if min(suite.reads_of(name)).layer < first or not reads_first(suite, name)
    )
    return {name: state.features[name].f[index] for name in known}


@dataclass(frozen=True)
class FullAndEmpty:
    """The metric of each prompt with nothing and with everything ablated."""

    full: Float[Tensor, " prompts"]
    empty: Float[Tensor, " prompts"]

    def faithfulness(self, values: Float[Tensor, "circuits prompts"]) -> Measured:
        """Of circuits whose metric on each prompt is `values`; `full` and `empty` are drawn too."""
        shares = resamples(len(self.full))
        return Measured(
            _ratio(values.mean(-1), self.full.mean(), self.empty.mean()),
            _ratio(values @ shares.T, shares @ self.full, shares @ self.empty),
        )


def _ratio(value: Tensor, full: Tensor, empty: Tensor) -> Tensor:
    return (value - empty) / (full - empty)


def full_and_empty(analysis: Analysis, to: BaselineValue) -> FullAndEmpty:
    """The metric with nothing and with everything ablated.

    Raises `ValueError` when their means are equal.
    """
    metric = analysis.metric
    full = each(analysis.states, lambda state: on_clean(metric, state.logits, state.rows).double())
    full = torch.cat(full).cpu()
    empty = metric_with(analysis, NodeSet.of([]), to)
    if abs(float(full.mean() - empty.mean())) < 1e-9:
        raise ValueError(
            "ablating every node changes nothing, so faithfulness has no scale: "
            "do the dictionaries belong to this model?"
        )
    return FullAndEmpty(full, empty)


def curve(
    analysis: Analysis,
    circuits: Sequence[NodeSet],
    scale: FullAndEmpty,
    *,
    to: BaselineValue,
    complete: bool = True,
    report: Callable[[int], None] = lambda done: None,
) -> FaithfulnessCurve:
    """Faithfulness and, where `complete`, completeness of each of `circuits`.

    `report` is as that of `metrics_with`.
    """
    both = [*circuits, *(c.complement() for c in circuits)] if complete else circuits
    values = metrics_with(analysis, both, to, report=report)
    inside, outside = values[: len(circuits)], values[len(circuits) :]
    return FaithfulnessCurve(scale.faithfulness(inside), scale.faithfulness(outside))


def default_to(prompts: EncodedPrompts) -> BaselineValue:
    """The mean over the prompts; zero, where a lone prompt would be its own mean."""
    return "zero" if len(prompts) == 1 and prompts.patch is None else "mean"


def mean_curve(curves: Sequence[FaithfulnessCurve]) -> FaithfulnessCurve:
    """Point by point mean of several curves, in every draw of the prompts too."""
    return FaithfulnessCurve(
        mean_measured([c.faithfulness for c in curves]),
        mean_measured([c.completeness for c in curves]),
    )


def mean_measured(parts: Sequence[Measured]) -> Measured:
    """Point by point mean, in every draw of the prompts too."""
    return Measured(
        torch.stack([part.values for part in parts]).mean(0),
        torch.stack([part.draws for part in parts]).mean(0),
    )

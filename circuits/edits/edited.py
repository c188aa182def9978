"""Prompts in a model with nodes ablated: where its nodes stand, and the graph that is left.

At a site where nodes are ablated, the features that stand are those that arrive, with the ablated
ones at what they are set to, and the error is the one that arrives:

    x' = f' @ W_dec + b_dec + error        f'_i = baseline_i where i is ablated, else f_i

The tensor x' is not encoded again. Encoding it would bring ablated features back in part, and turn
others on that nothing upstream turned on. An ablated node stands at the same value whatever the
prompt does, so it has no effect.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.faithfulness import fixed_baseline
from circuits.analysis import Analysis
from circuits.attribution.means import mean_of
from circuits.attribution.recorded import (
    Decomposed,
    Run,
    decompose,
    run_plain,
    site_values,
)
from circuits.attribution.state import (
    KEPT,
    BatchState,
    ErrorState,
    FeatureState,
    States,
    batch_state,
    check_patch,
)
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablation import Ablation
from circuits.metrics.metric import Metric, SiteMetric, divergence, reading
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture_arriving
from hooked_qwen.placement import device_of
from hooked_qwen.precision import our_precision
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.features import Features
from saes.intervention import Baseline, reads_first, setting, touched
from saes.nodes import NodeSet
from saes.suite import Suite


def edited_states(analysis: Analysis, edit: Ablation) -> States:
    """The prompts in batches, clean and patch prompts both run under `edit`.

    Ablated to `patch`, every prompt has its own patch's values.
    """
    model, suite, config = analysis.model, analysis.suite, analysis.config
    device = device_of(model)
    ablated = edit.kept_set().complement().to(device)
    parts = torch.arange(len(analysis.prompts)).split(config.batch_size)
    run = partial(_run, analysis, edit, ablated)
    reference = None
    if config.reference == "mean":
        reference = mean_of(
            suite,
            ((found.batch, found.nodes.clean) for found in map(run, parts)),
            by_position=config.positions != "sum",
            dtype=our_precision(model),
        )

    def make(rows: Int[Tensor, " batch"]) -> BatchState:
        f = run(rows)
        patched = None if f.nodes.patch is None else f.nodes.patch.run
        state = batch_state(rows.to(device), f.batch, f.nodes, patched, config.reference, reference)
        under = partial(_under, model, suite, ablated, f.base, f.nodes.clean.run.known)
        return _held(state, ablated, f.base, under)

    return States([partial(make, rows) for rows in parts], keep=suite.room_for_states(KEPT))


@dataclass(frozen=True)
class _Run:
    """One batch under the edit, and what its ablated nodes are set to."""

    batch: Batch
    nodes: Decomposed
    base: Baseline


def _run(analysis: Analysis, edit: Ablation, ablated: NodeSet, rows: Int[Tensor, " batch"]) -> _Run:
    model, suite, prompts = analysis.model, analysis.suite, analysis.prompts
    device = device_of(model)
    clean = prompts.clean.rows(rows).to(device)
    patch = None if prompts.patch is None else prompts.patch.rows(rows).to(device)
    plain = run_plain(model, suite, clean)
    plain_patch = None if patch is None else run_plain(model, suite, patch)
    base = _baseline(analysis, edit, plain, plain_patch)
    run = _edited_run(model, suite, clean, ablated, base, plain)
    patched = None
    if patch is not None and plain_patch is not None:
        own = {k: replace(s, known=plain_patch.outlier[k]) for k, s in base.spared.items()}
        patched = _edited_run(model, suite, patch, ablated, replace(base, spared=own), plain_patch)
    return _Run(clean, decompose(suite, run, patched, reference=analysis.config.reference), base)


def _baseline(analysis: Analysis, edit: Ablation, plain: Run, patch: Run | None) -> Baseline:
    """What ablated nodes are set to; only to go to a patch asks what the plain nodes are."""
    suite = analysis.suite
    if edit.to != "patch":
        means = analysis.means if edit.to == "mean" else None
        return fixed_baseline(suite, edit.to, means, outlier=plain.outlier)
    check_patch("patch", patch)
    assert patch is not None
    found = decompose(suite, patch).clean
    return Baseline(found.features, found.errors, {})


def _edited_run(
    model: TransformerBridge,
    suite: Suite,
    batch: Batch,
    ablated: NodeSet,
    base: Baseline,
    plain: Run,
) -> Run:
    """A run under the edit; what counts as a norm outlier is as in the `plain` run."""
    early = {n: suite[n].encode(plain.read[n]) for n in suite if not reads_first(suite, n)}
    with (
        setting(model, suite, [ablated], base, plain=early),
        capture_arriving(model, touched(suite, ablated)) as arriving,
    ):
        values, logits, arguments = site_values(model, suite, batch)
    read = {name: suite.read(name, values | arriving) for name in suite}

    def standing(name: str, f: Features) -> Features:
        stays = f.times(~_ablated(ablated, name, base, f))
        return stays.plus(_set_to(ablated, name, base, f))

    return Run(values, read, plain.outlier, logits, arguments, early, standing)


def _set_to(ablated: NodeSet, name: str, base: Baseline, f: Features) -> Features:
    """The ablated features of a dictionary at what they are set to.

    A table of means knows every feature that is on in any prompt: the others of it are left out
    before there is a row for each prompt.
    """
    to = base.features[name]
    to = to.expand(len(to.value), f.value.shape[1])
    to = to.only(ablated.feature(name, to.index, to.columns())).expand(*f.value.shape[:-1])
    return to.times(_ablated(ablated, name, base, to))


def _ablated(
    ablated: NodeSet, name: str, base: Baseline, f: Features
) -> Bool[Tensor, "batch pos slots"]:
    """Which features are at their baseline: not those on norm outliers that stay."""
    found = ablated.feature(name, f.index, f.columns())
    spared = base.spared.get(name)
    return found if spared is None else found & ~spared.tokens({}, None).unsqueeze(-1)


def _columns(tokens: Float[Tensor, "batch pos"]) -> Int[Tensor, "batch pos"]:
    return torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape)


def _held(
    state: BatchState,
    ablated: NodeSet,
    base: Baseline,
    under: Callable[[Int[Tensor, " rows"]], AbstractContextManager[None]],
) -> BatchState:
    """The state with ablated nodes that do not move, whatever they were to be moved to."""

    def feature(name: str, nodes: FeatureState) -> FeatureState:
        reference = nodes.reference.expand(*nodes.f.value.shape[:-1])
        moves = reference.times(~_ablated(ablated, name, base, reference))
        stays = nodes.f.times(_ablated(ablated, name, base, nodes.f))
        return replace(nodes, reference=moves.plus(stays))

    def error(site: Site, nodes: ErrorState) -> ErrorState:
        held = ablated.error(site, _columns(nodes.error[..., 0]))
        if (spared := base.spared.get(str(site))) is not None:
            held = held & ~spared.tokens({}, None)
        return replace(
            nodes, reference=torch.where(held.unsqueeze(-1), nodes.error, nodes.reference)
        )

    return replace(
        state,
        features={name: feature(name, nodes) for name, nodes in state.features.items()},
        errors={site: error(site, nodes) for site, nodes in state.errors.items()},
        under=under,
    )


def _under(
    model: TransformerBridge,
    suite: Suite,
    ablated: NodeSet,
    base: Baseline,
    early: Mapping[str, Features],
    index: Int[Tensor, " rows"],
) -> AbstractContextManager[None]:
    plain = {name: f[index] for name, f in early.items()}
    return setting(model, suite, [ablated], base.rows(index), plain=plain, must_run=False)


def graph_left(
    analysis: Analysis, edit: Ablation, before: nx.DiGraph, *, report: Report = silent
) -> nx.DiGraph:
    """The graph of the edited model, with the ablated nodes of the graph `before` in it.

    Found by the rules of the analysis; where these ask for a faithfulness, which is of circuits
    in the plain model, as many nodes as `before` has are kept.
    """
    if analysis.config.faithfulness is not None:
        kept = sum(n.kind in ("feature", "error") for n in before)
        config = replace(analysis.config, faithfulness=None, nodes=max(1, kept))
        analysis = replace(analysis, config=config)
    states = edited_states(analysis, edit)
    edited = replace(analysis, edited=states, metric=_metric(analysis, states))
    left = discover(edited, report=report).graph
    for node, data in left.nodes(data=True):
        if node in before:
            data["label"] = before.nodes[node]["label"]
    _add_ablated(left, before, edit)
    names = [str(node) for node in edit.inner]
    left.graph["ablation"] = {"to": edit.to, "features" if edit.kept is None else "kept": names}
    return left


def _metric(analysis: Analysis, states: States) -> Metric:
    """The metric of the edited model: what it compares with or reads is of runs under the edit."""
    model, prompts, metric = analysis.model, analysis.prompts, analysis.metric
    if analysis.config.metric == "kl":
        return divergence(torch.cat([state.logits for state in states]))
    if not isinstance(metric, SiteMetric):
        return metric

    def read(side: Batch) -> Float[Tensor, " prompts"]:
        found = []
        for state in states:
            with state.under(state.every_row), reading(model, metric) as value:
                run_through(model, side.rows(state.rows.cpu()), metric.site.layer)
            found.append(value(None, state.rows))
        return torch.cat(found)

    with torch.no_grad():
        patch = None if prompts.patch is None else read(prompts.patch)
        return replace(metric, clean=read(prompts.clean), patch=patch)


def _add_ablated(graph: nx.DiGraph, before: nx.DiGraph, edit: Ablation) -> None:
    """Put the nodes of `before` that the edit ablates into what is left.

    They have no effect and no edge, and their attribute `ablated` says what they were set to. One
    that is in `graph` stands on norm outliers, which no edit to zero or to a mean touches.
    """
    for node in before:
        if node.kind in ("feature", "error") and edit.ablates(node) and node not in graph:
            known = {k: before.nodes[node][k] for k in ("kind", "label", "token")}
            graph.add_node(node, **known, effect=0.0, exact=None, activation=None, ablated=edit.to)

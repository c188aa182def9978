"""Prompts in a model with nodes ablated: where its nodes stand, and the graph that is left.

At a site where nodes are ablated, the features that stand are those that arrive, with the ablated
ones at what they are set to, and the error is the one that arrives:

    x' = f' @ W_dec + b_dec + error        f'_i = baseline_i where i is ablated, else f_i

The tensor x' is not encoded again. Encoding it would bring ablated features back in part, and turn
others on that nothing upstream turned on. An ablated node stands at the same value whatever the
prompt does, so it has no effect.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.exact_effects import Baseline, Masks, only
from circuits.ablation.faithfulness import ablation_means, baselines
from circuits.attribution.state import (
    BatchState,
    Means,
    Recorded,
    SiteState,
    batch_state,
    mean_of,
    record,
    site_values,
)
from circuits.discovery.ranking import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.edit import Edit
from circuits.metrics.answers import metric_of
from circuits.metrics.metric import Metric, SiteMetric, divergence, reading
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture_arriving
from hooked_qwen.precision import our_precision
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.suite import Suite


def edited_states(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    edit: Edit,
    *,
    config: DiscoverConfig,
) -> list[BatchState]:
    """The prompts in batches, clean and patch prompts both run under `edit`.

    Ablated to `patch`, every prompt has its own patch's values.
    """
    suite = suite.fitting(model)
    masks = edit.masks(suite, prompts.n_positions(config.positions))
    options = {"positions": config.positions, "batch_size": config.batch_size}
    means = ablation_means(model, suite, prompts, **options) if edit.to == "mean" else None
    batches = [
        _run(model, suite, prompts, rows, masks, edit, means)
        for rows in torch.arange(len(prompts)).split(config.batch_size)
    ]
    reference = None
    if config.reference == "mean":
        reference = mean_of(
            suite,
            ((clean, run) for _, clean, run, _, _ in batches),
            by_position=config.positions != "sum",
            dtype=our_precision(model),
        )
    return [
        _held(
            batch_state(suite, rows, clean, run, patched, config.reference, reference),
            masks,
            base,
            partial(_under, model, suite, masks, base),
        )
        for rows, clean, run, patched, base in batches
    ]


def _run(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    rows: Int[Tensor, " batch"],
    masks: Masks,
    edit: Edit,
    means: Means | None,
) -> tuple[Int[Tensor, " batch"], Batch, Recorded, Recorded | None, dict[Site, Baseline]]:
    """One batch under the edit, and what its ablated nodes are set to."""
    clean = prompts.clean.rows(rows)
    patch = None if prompts.patch is None else prompts.patch.rows(rows)
    plain = record(model, suite, clean)
    plain_patch = None if patch is None else record(model, suite, patch)
    state = batch_state(
        suite, rows, clean, plain, plain_patch, "zero" if patch is None else "patch", None
    )
    base = baselines(suite, edit.to, means=means, state=state)
    run = _recorded(model, suite, clean, masks, base, plain)
    patched = None
    if patch is not None and plain_patch is not None:
        own = {site: replace(b, outlier=plain_patch.outlier[site]) for site, b in base.items()}
        patched = _recorded(model, suite, patch, masks, own, plain_patch)
    return rows, clean, run, patched, base


def _recorded(
    model: TransformerBridge,
    suite: Suite,
    batch: Batch,
    masks: Masks,
    base: Mapping[Site, Baseline],
    plain: Recorded,
) -> Recorded:
    """A run under the edit; what counts as a norm outlier is as in the `plain` run."""
    cut = {site for site, mask in masks.items() if not mask.keeps_all}
    with only(model, suite, masks, base), capture_arriving(model, cut) as arriving:
        values, logits, arguments = site_values(model, suite, batch)
    read = {s: arriving.get(d.source, values[d.source]) for s, d in suite.items()}
    encoded = {site: dictionary.encode(read[site]) for site, dictionary in suite.items()}
    standing = dict(encoded)
    for site in cut:
        ablated = _ablated(masks[site].feature, base[site])
        standing[site] = torch.where(ablated, base[site].f, encoded[site])
    return Recorded(values, read, encoded, standing, plain.outlier, logits, arguments)


def _ablated(kept: Bool[Tensor, "pos nodes"], base: Baseline) -> Bool[Tensor, "#batch pos nodes"]:
    """Where nodes are at their baseline: those not kept, but on norm outliers that stay."""
    if base.stays is None or base.outlier is None:
        return ~kept.unsqueeze(0)
    return ~kept & ~(base.outlier & base.stays).unsqueeze(-1)


def _held(
    state: BatchState,
    masks: Masks,
    base: Mapping[Site, Baseline],
    under: Callable[[Int[Tensor, " rows"]], AbstractContextManager[None]],
) -> BatchState:
    """The state with ablated nodes that do not move, whatever they were to be moved to."""

    def held(site: Site, nodes: SiteState) -> SiteState:
        feature = _ablated(masks[site].feature, base[site])
        error = _ablated(masks[site].error.unsqueeze(-1), base[site])
        return replace(
            nodes,
            f_reference=torch.where(feature, nodes.f, nodes.f_reference),
            error_reference=torch.where(error, nodes.error, nodes.error_reference),
        )

    sites = {site: held(site, nodes) for site, nodes in state.sites.items()}
    return replace(state, sites=sites, under=under)


def _under(
    model: TransformerBridge,
    suite: Suite,
    masks: Masks,
    base: Mapping[Site, Baseline],
    index: Int[Tensor, " rows"],
) -> AbstractContextManager[None]:
    rows = {site: baseline.rows(index) for site, baseline in base.items()}
    return only(model, suite, masks, rows, must_run=False)


def graph_left(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    edit: Edit,
    before: nx.DiGraph,
    *,
    config: DiscoverConfig,
    report: Report = silent,
) -> nx.DiGraph:
    """The graph of the edited model, with the ablated nodes of the graph `before` in it.

    Found by the rules of `config`; where that asks for a faithfulness, which is of circuits in the
    plain model, as many nodes as `before` has are kept.
    """
    if config.faithfulness is not None:
        kept = sum(n.kind in ("feature", "error") for n in before)
        config = replace(config, faithfulness=None, nodes=max(1, kept))
    suite = suite.fitting(model)
    states = edited_states(model, suite, prompts, edit, config=config)
    metric = _metric(model, suite, prompts, states, config)
    left = discover(
        model, suite, prompts, config=config, states=states, metric=metric, report=report
    ).graph
    for node, data in left.nodes(data=True):
        if node in before:
            data["label"] = before.nodes[node]["label"]
    _add_ablated(left, before, edit)
    names = [str(node) for node in edit.inner]
    left.graph["ablation"] = {"to": edit.to, "features" if edit.kept is None else "kept": names}
    return left


def _metric(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    states: Sequence[BatchState],
    config: DiscoverConfig,
) -> Metric:
    """The metric of the edited model: what it compares with or reads is of runs under the edit."""
    if config.metric == "kl":
        return divergence(torch.cat([state.logits for state in states]))
    metric = metric_of(config.metric, model, prompts, suite, positions=config.positions)
    if not isinstance(metric, SiteMetric):
        return metric

    def read(side: Batch) -> Float[Tensor, " prompts"]:
        found = []
        for state in states:
            with state.under(state.every_row), reading(model, metric) as value:
                run_through(model, side.rows(state.rows), metric.site.layer)
            found.append(value(None, state.rows))
        return torch.cat(found)

    with torch.no_grad():
        patch = None if prompts.patch is None else read(prompts.patch)
        return replace(metric, clean=read(prompts.clean), patch=patch)


def _add_ablated(graph: nx.DiGraph, before: nx.DiGraph, edit: Edit) -> None:
    """Put the nodes of `before` that the edit ablates into what is left.

    They have no effect and no edge, and their attribute `ablated` says what they were set to. One
    that is in `graph` stands on norm outliers, which no edit to zero or to a mean touches.
    """
    for node in before:
        if node.kind in ("feature", "error") and edit.ablates(node) and node not in graph:
            known = {k: before.nodes[node][k] for k in ("kind", "label", "token")}
            graph.add_node(node, **known, effect=0.0, exact=None, activation=None, ablated=edit.to)

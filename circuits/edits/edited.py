"""Prompts in an edited model: where its nodes stand, and the graph that is left.

At a site where nodes are edited, the features that stand are those that arrive, with the edited
ones at what they become, and the error is the one that arrives, unless it is edited too:

    x' = f' @ W_dec + b_dec + error        f'_i = what i becomes where i is edited, else f_i

The tensor x' is not encoded again. Encoding it would bring ablated features back in part, and turn
others on that nothing upstream turned on. A node that is pinned, to zero, a mean or a value, stands
there whatever the prompt does, so it has no effect. One that is scaled, moved or held to a range
keeps its effect: that of moving it from where it stands to where it stands on the patch prompt,
which is run under the edit too. To zero and to a mean it moves from where it stands as any node
does, whatever is done to it.

An ablation leaves norm outliers as they are (`circuits.edits.ablated_run`), the operations of an
edit do not know them (`circuits.edits.operated_run`); all else here is the same for both.

A replacement graph under an ablation is found in the replacement models of the prompts run under it
(`circuits.edits.pinned`).
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import DecomposedRun
from circuits.attribution.means import mean_of
from circuits.attribution.state import (
    KEPT,
    BatchState,
    ErrorState,
    FeatureState,
    States,
    batch_state,
    each,
)
from circuits.discovery.replaced_prompts import by_transcoders
from circuits.discovery.replacement import discover_replacement
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablated_run import ablated_run
from circuits.edits.ablation import Ablation
from circuits.edits.edited_run import EditedRun
from circuits.edits.operated_run import check_operations, operated_run
from circuits.edits.pinned import pinned_by
from circuits.edits.rerun import require_fires
from circuits.graph import Node
from circuits.metrics.metric import Metric, SiteMetric, divergence, reading
from hooked_qwen.forward import run_through
from hooked_qwen.nodes import EVERY
from hooked_qwen.placement import device_of
from hooked_qwen.precision import our_precision
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.edit_file import Edit, Operation
from saes.edit_words import in_words, said, short
from saes.firing import tokens_at
from saes.operations import kind_of


def edited_states(analysis: Analysis, edit: Ablation | Edit) -> States:
    """The prompts in batches, clean and patch prompts both run under `edit`.

    Where a node goes to the patch, every prompt has its own patch's values. Raises `ValueError`
    for an edit of other dictionaries, and for a patch that is not there.
    """
    suite, config, device = analysis.suite, analysis.config, device_of(analysis.model)
    parts = torch.arange(len(analysis.prompts)).split(config.batch_size)
    run: Callable[[Int[Tensor, " batch"]], EditedRun] = (
        partial(ablated_run, analysis, edit)
        if isinstance(edit, Ablation)
        else partial(operated_run, analysis, edit)
    )

    def clean(rows: Int[Tensor, " batch"]) -> tuple[Batch, DecomposedRun]:
        found = run(rows)
        return found.batch, found.nodes.clean

    reference = None
    if config.reference == "mean":
        reference = mean_of(
            suite,
            [partial(clean, rows) for rows in parts],
            by_position=config.positions != "sum",
            dtype=our_precision(analysis.model),
        )

    def make(rows: Int[Tensor, " batch"]) -> BatchState:
        f = run(rows)
        patched = None if f.nodes.patch is None else f.nodes.patch.run
        state = batch_state(rows.to(device), f.batch, f.nodes, patched, config.reference, reference)
        return _held(state, f)

    return States([partial(make, rows) for rows in parts], keep=suite.room_for_states(KEPT))


def edited_analysis(analysis: Analysis, edit: Ablation | Edit) -> Analysis:
    """The analysis of the same prompts in the edited model.

    Raises as `edited_states` does.
    """
    states = edited_states(analysis, edit)
    return replace(analysis, edited=states, metric=_metric(analysis, states))


def _held(state: BatchState, run: EditedRun) -> BatchState:
    """The state with pinned nodes at their clean values, whatever their reference values were."""

    def feature(name: str, nodes: FeatureState) -> FeatureState:
        reference = nodes.reference.expand(*nodes.f.value.shape[:-1])
        changed = reference.times(~run.held(name, reference))
        stays = nodes.f.times(run.held(name, nodes.f))
        return replace(nodes, reference=changed.plus(stays), response=run.responses.get(name))

    def error(site: Site, nodes: ErrorState) -> ErrorState:
        held = run.held_errors(site).unsqueeze(-1)
        reference = torch.where(held, nodes.error, nodes.reference)
        return replace(nodes, reference=reference, response=run.error_responses.get(site))

    return replace(
        state,
        features={name: feature(name, nodes) for name, nodes in state.features.items()},
        errors={site: error(site, nodes) for site, nodes in state.errors.items()},
        under=run.under,
    )


def graph_left(
    analysis: Analysis, edit: Ablation | Edit, before: nx.DiGraph, *, report: Report = silent
) -> nx.DiGraph:
    """The graph of the edited model, with the pinned nodes of the graph `before` in it.

    Found by the rules of the analysis; where these ask for a faithfulness, which is of circuits
    in the plain model, as many nodes as `before` has are kept.

    Raises `ValueError` as `edited_states` does, and `RuntimeError` for an edit that changes
    nothing in any prompt.
    """
    if isinstance(edit, Edit):
        check_operations(analysis, edit)
        require_fires(analysis, edit)
    if analysis.config.faithfulness is not None:
        kept = sum(n.kind in ("feature", "error") for n in before)
        config = replace(analysis.config, faithfulness=None, nodes=max(1, kept))
        analysis = replace(analysis, config=config)
    left = _found(analysis, edit, report)
    labels = {node[:2]: data["label"] for node, data in before.nodes(data=True)}
    for node, data in left.nodes(data=True):
        data["label"] = labels.get(node[:2], data["label"])
    if "task" in before.graph:
        left.graph["task"] = before.graph["task"]
    if isinstance(edit, Ablation):
        _add_pinned(left, before, {n: edit.to for n in before if edit.ablates(n)})
        names = [str(node) for node in edit.inner]
        of = "features" if edit.kept is None else "kept"
        left.graph["ablation"] = {"to": edit.to, of: names}
    else:
        batch = analysis.prompts.clean
        _add_pinned(left, before, _pinned(edit, before, batch))
        _say_what_is_done(left, edit)
        left.graph["edit"] = in_words(edit)
    return left


def _found(analysis: Analysis, edit: Ablation | Edit, report: Report) -> nx.DiGraph:
    """The graph of the edited model, of the kind that the analysis asks for."""
    if analysis.config.method == "sparse-feature":
        return discover(edited_analysis(analysis, edit), report=report).graph
    assert isinstance(edit, Ablation), "replacement graphs are found under ablations"
    analysis = by_transcoders(analysis)
    pinning = partial(pinned_by, analysis, edit)
    edited = edited_analysis(analysis, edit)
    return discover_replacement(edited, pinning=pinning, report=report).graph


def _metric(analysis: Analysis, states: States) -> Metric:
    """The metric of the edited model: what it compares with or reads is of runs under the edit."""
    model, prompts, metric = analysis.model, analysis.prompts, analysis.metric
    if analysis.config.metric == "kl":
        return divergence(torch.cat(each(states, lambda state: state.logits)))
    if not isinstance(metric, SiteMetric):
        return metric

    def read(side: Batch) -> Float[Tensor, " prompts"]:
        def under(state: BatchState) -> Float[Tensor, " batch"]:
            with state.under(state.every_row), reading(model, metric) as value:
                run_through(model, side.rows(state.rows.cpu()), metric.site.layer)
            return value(None, state.rows)

        return torch.cat(each(states, under))

    with torch.no_grad():
        patch = None if prompts.patch is None else read(prompts.patch)
        return replace(metric, clean=read(prompts.clean), patch=patch)


def _add_pinned(graph: nx.DiGraph, before: nx.DiGraph, pinned: Mapping[Node, str]) -> None:
    """Put the nodes of `before` that are pinned into what is left.

    They have no effect and no edge, and their attribute `ablated` says what they were set to. One
    that is in `graph` stands on norm outliers, which no ablation to zero or to a mean touches.
    """
    for node, to in pinned.items():
        if node.kind in ("feature", "error") and node not in graph:
            known = {k: before.nodes[node][k] for k in ("kind", "label", "token")}
            known |= {"influence": 0.0} if "influence" in before.nodes[node] else {}
            graph.add_node(node, **known, effect=0.0, exact=None, activation=None, ablated=to)


def _pinned(edit: Edit, graph: nx.DiGraph, batch: Batch) -> dict[Node, str]:
    """The nodes that operations without a condition pin at all of their tokens, and to what."""
    mask = batch.mask
    tokens = (mask.long().cumsum(-1) - 1).masked_fill(~mask, -1)
    columns = torch.arange(mask.shape[1])
    pinning = [op for op in edit.operations if kind_of(op.do).pins and op.when is None]
    found: dict[Node, str] = {}
    for node in graph:
        of_node = [op for op in pinning if names(op, node)]
        if not of_node:
            continue
        own = mask if node.position is None else mask & (columns == node.position)
        at = torch.stack([_tokens(op, tokens, mask) for op in of_node]).any(0)
        if not (own & ~at).any():
            found[node] = of_node[-1].do
    return found


def names(op: Operation, node: Node) -> bool:
    """Whether an operation is of a node, wherever it is done."""
    if (op.node.site, op.node.kind) != (node.site, node.kind):
        return False
    if op.node.kind == "error" or op.node.feature == node.feature:
        return True
    return op.node.feature == EVERY and all(n.feature != node.feature for n in op.besides)


def _tokens(
    op: Operation, tokens: Int[Tensor, "batch pos"], mask: Bool[Tensor, "batch pos"]
) -> Bool[Tensor, "batch pos"]:
    found = tokens_at(op.positions, tokens, mask.sum(-1, keepdim=True))
    if op.node.position is not None:
        found = found & (tokens == op.node.position)
    if op.node.kind == "error":
        for node in op.besides:
            found = found & (tokens != node.position)
    return found


def _say_what_is_done(graph: nx.DiGraph, edit: Edit) -> None:
    """Attributes of each node that is edited: `edited` says what is done to it, `done` in short."""
    for node, data in graph.nodes(data=True):
        of_node = [op for op in edit.operations if names(op, node)]
        if of_node:
            data["edited"] = "; ".join(map(said, of_node))
            data["done"] = ", ".join(dict.fromkeys(map(short, of_node)))

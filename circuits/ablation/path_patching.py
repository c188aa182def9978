"""The exact oracle of edges: path patching, by running the model once for each source node.

    exact(u -> d)       grad_d m . (d(u') - d)        d a feature's activation, or an error
    exact(u -> output)  m(u') - m

In the run, u is set from its clean to its reference value, and every other site of the graph,
the embeddings included, sends on its clean tensor whatever arrives there; d is read from what
arrives. So the change reaches d only along paths that pass no other site. That is the edge whose
weight `circuits.attribution.edges` estimates. A feature's exact change is its response to
this change alone, where the estimate uses the secant slope from the clean to the patch prompt.

Units are those of the metric; positive means that setting u to its reference value raises it.

Source: path patching, Goldowsky-Dill et al. 2023, arXiv:2304.05969.
Differs: the target's change is scaled by the metric's gradient to the target, where they let it
run on to the output, so that it is in the units of the weight it is held against.

Axes: `rows` pairs of a source and a prompt, `edges`, `sources`, `targets` those that are asked for.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.ablation.exact_effects import rows_at_once
from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.deltas import features_of, node_deltas
from circuits.attribution.direct_paths import reaching_node, sites_of, to_output
from circuits.attribution.state import BatchState
from circuits.attribution.vjp_batches import order_of
from circuits.graph import Edge
from circuits.metrics.metric import Metric, SiteMetric, metric_at, on_clean
from hooked_qwen.forward import resume
from hooked_qwen.hooks import Activation, HookFunction, capture, intervene
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.suite import Suite


@torch.no_grad()
def exact_edges(
    analysis: Analysis,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    edges: Sequence[Edge],
    *,
    report: Callable[[int], None] | None = None,
) -> Float[Tensor, "edges batch"]:
    """What each edge carries on each prompt of the batch; `edge_weights` estimates their sum.

    `gradients` are the ones that `edge_weights` is given. All targets of a source share its run,
    and a run spans only the layers from the source to its last target. Pairs that no edge can
    join are zero without one: other sites lie on every path, or the source comes at a later
    position than the target. `report` is called with the edges done since.

    Raises `ValueError` for a node at a site that has no dictionary.
    """
    batch = _PatchingBatch(analysis, state, gradients)
    weights = torch.zeros(len(edges), len(state.rows), dtype=torch.float64)
    groups = by_source(analysis.suite, analysis.metric, edges)
    if report is not None:
        report(len(edges) - sum(map(len, groups.values())))
    for members in groups.values():
        rows = {node: i for i, node in enumerate(dict.fromkeys(edges[e][0] for e in members))}
        columns = {node: i for i, node in enumerate(dict.fromkeys(edges[e][1] for e in members))}
        table = _table(batch, list(rows), list(columns)).cpu()
        at = [(rows[u], columns[d]) for u, d in (edges[e] for e in members)]
        weights[members] = table[tuple(torch.tensor(at).T)]
        if report is not None:
            report(len(members))
    return weights


def by_source(
    suite: Suite, metric: Metric, edges: Sequence[Edge]
) -> dict[tuple[str, str], list[int]]:
    """Indices of the edges that can exist, by their source's name and kind."""
    found: dict[tuple[str, str], list[int]] = defaultdict(list)
    reach: dict[Node, set[Site]] = {}
    for i, (source, target) in enumerate(edges):
        for node in (source, target):
            _check(suite, node)
        end = target._replace(feature=0 if target.kind == "feature" else target.feature)
        if end not in reach:
            sites = (
                to_output(suite, metric) if end.kind == "logit" else reaching_node(suite, target)
            )
            reach[end] = set(sites)
        if source.kind == "logit" or target.kind == "token":
            continue
        if reach[end].isdisjoint(sites_of(suite, source)):
            continue
        if target.kind != "logit" and not order_of(suite, source) < order_of(suite, target):
            continue
        p, q = source.position, target.position
        if p is None or q is None or p <= q:
            found[source.site, source.kind].append(i)
    return found


def _check(suite: Suite, node: Node) -> None:
    if node.kind in ("logit", "token") or node.site in suite:
        return
    if node.kind == "error" and Site.parse(node.site) in suite.writes:
        return
    raise ValueError(
        f"{node} is at {node.site}, which has no dictionary: expected a node at one of embed, "
        f"{', '.join(suite)}, or the output"
    )


@dataclass(frozen=True)
class _PatchingBatch:
    """What all runs of one call share."""

    analysis: Analysis
    state: BatchState
    gradients: Mapping[Site, Activation]

    @property
    def suite(self) -> Suite:
        return self.analysis.suite


@dataclass(frozen=True)
class _PatchedRows:
    """One run: what reaches each site, what leaves it, and the stream that the output reads."""

    index: Int[Tensor, " rows"]
    "which prompt of the batch each row is"
    arriving: dict[Site, Activation]
    leaving: dict[Site, Activation]
    last: Float[Tensor, "rows 1 d_model"] | None


def _table(
    batch: _PatchingBatch, sources: Sequence[Node], targets: Sequence[Node]
) -> Float[Tensor, "sources targets batch"]:
    """Every source's edge to every target on every prompt; the sources write the same sites."""
    state, sites = batch.state, sites_of(batch.suite, sources[0])
    like = state.embed_change
    table = like.new_zeros(len(sources), len(targets), len(state.rows), dtype=torch.float64)
    limit = rows_at_once(state)
    # Many nodes change on few of the prompts, so more are looked at than fill one run.
    for some in torch.arange(len(sources)).split(max(1, 4 * limit // len(state.rows))):
        deltas = node_deltas(batch.suite, state, [sources[i] for i in some.tolist()])
        changed = torch.stack([d.flatten(2).any(-1) for d in deltas.values()]).any(0)
        source, prompt = changed.nonzero(as_tuple=True)
        for start in range(0, len(source), limit):
            pick = slice(start, start + limit)
            row, index = source[pick], prompt[pick]
            values = {s: state.values[s][index] + deltas[s][row, index] for s in sites}
            run = _run(batch, values, index, targets)
            table[some.to(row.device)[row], :, index] = _gaps(batch, run, targets)
    return table


def _run(
    batch: _PatchingBatch,
    values: Mapping[Site, Float[Tensor, "rows pos d_model"]],
    index: Int[Tensor, " rows"],
    targets: Sequence[Node],
) -> _PatchedRows:
    """Run with `values` leaving their sites and every other site held, to the last of `targets`."""
    suite, state = batch.suite, batch.state
    model, metric = batch.analysis.model, batch.analysis.metric
    to_output = any(node.kind == "logit" for node in targets)
    read = {metric.site} if isinstance(metric, SiteMetric) else set()
    site = min(values)
    first, last = layers_between(suite, site, targets, len(model.blocks))
    whole = _is_stream(site)
    resid = values[site] if whole else state.values[Site("resid_pre", first)][index]
    written = suite.writes
    passed = [s for s in sorted({*written, *suite.reads, *read}) if first <= s.layer <= last]
    leaving = {s: state.values[s][index] for s in passed if s in written} | dict(values)
    edits = {s: _send(leaving[s]) for s in passed if s in written}
    with capture(model, passed) as arriving, intervene(model, edits):
        arguments = state.arguments.rows(index)
        final = resume(model, resid, first, arguments, stop=last + 1)
    return _PatchedRows(index, arriving, leaving, final[:, -1:] if to_output else None)


def layers_between(
    suite: Suite, site: Site, targets: Sequence[Node], n_layers: int
) -> tuple[int, int]:
    """The first and the last layer of a run from `site` to the last of `targets`."""
    first = site.layer + 1 if _is_stream(site) else site.layer
    if any(node.kind == "logit" for node in targets):
        return first, n_layers - 1
    return first, max(s.layer for node in targets for s in _read_by(suite, node))


def _is_stream(site: Site) -> bool:
    return site == EMBED or site.kind == "resid_post"


def _read_by(suite: Suite, node: Node) -> tuple[Site, ...]:
    """The sites whose tensors a node follows."""
    if node.kind == "feature":
        return suite.reads_of(node.site)
    site = Site.parse(node.site)
    return (site, *(s for name in suite.writing(site) for s in suite.reads_of(name)))


def _send(value: Activation) -> HookFunction:
    return lambda _: value


def _gaps(
    batch: _PatchingBatch, run: _PatchedRows, targets: Sequence[Node]
) -> Float[Tensor, "rows targets"]:
    """What the move of each row does to each target, in units of the metric."""
    like = batch.state.embed_change
    gaps = like.new_zeros(len(run.index), len(targets), dtype=torch.float64)
    groups: dict[tuple[str, str, int | None], list[int]] = defaultdict(list)
    for i, node in enumerate(targets):
        groups[node.site, node.kind, node.position].append(i)
    for (_, kind, _), members in groups.items():
        nodes = [targets[i] for i in members]
        if kind == "logit":
            gaps[:, members] = _output_gap(batch, run).double().unsqueeze(-1)
        elif kind == "error":
            gaps[:, members] = _error_gap(batch, run, nodes[0]).double().unsqueeze(-1)
        else:
            gaps[:, members] = _feature_gaps(batch, run, nodes).double()
    return gaps


def _output_gap(batch: _PatchingBatch, run: _PatchedRows) -> Float[Tensor, " rows"]:
    rows, metric = batch.state.rows, batch.analysis.metric
    clean = on_clean(metric, batch.state.logits, rows)[run.index]
    if isinstance(metric, SiteMetric):
        leaving = run.leaving if metric.when == "leaving" else {}
        tensors = run.arriving | leaving
        return metric.read(tensors[metric.site], rows[run.index]) - clean
    assert run.last is not None, "a run to the output has its last stream"
    return metric_at(batch.analysis.model, run.last, metric, rows[run.index]) - clean


def _feature_gaps(
    batch: _PatchingBatch, run: _PatchedRows, nodes: Sequence[Node]
) -> Float[Tensor, "rows targets"]:
    """The same for features of one dictionary at one position: gradient times change."""
    name, at = nodes[0].site, _columns(nodes[0])
    dictionary, chosen = batch.suite[name], features_of(nodes, batch.state)
    g = torch.cat([batch.gradients[s][:, at][run.index] for s in dictionary.writes], -1)
    f = dictionary.encode(_read(batch, run, dictionary, at)).of(chosen)
    clean = batch.state.features[name].f[:, at].of(chosen)[run.index]
    return ((f - clean) * (g @ dictionary.W_dec[chosen].T)).sum(1)


def _error_gap(batch: _PatchingBatch, run: _PatchedRows, node: Node) -> Float[Tensor, " rows"]:
    """The same for the error of a site: its gradient times its change."""
    site, at = Site.parse(node.site), _columns(node)
    error = run.arriving[site][:, at]
    for name in batch.suite.writing(site):
        dictionary = batch.suite[name]
        f = dictionary.encode(_read(batch, run, dictionary, at))
        error = error - dictionary.by_site(dictionary.decode(f))[site]
    gap = error - batch.state.errors[site].error[:, at][run.index]
    return (gap * batch.gradients[site][:, at][run.index]).sum((1, 2))


def _columns(node: Node) -> slice:
    return slice(None) if node.position is None else slice(node.position, node.position + 1)


def _read(
    batch: _PatchingBatch, run: _PatchedRows, dictionary: SparseDictionary, at: slice
) -> Activation:
    """What a dictionary encodes: at the sites that it writes, what arrives there.

    Another dictionary's site is read after it, where its nodes have moved.
    """
    values = {}
    for site in dictionary.reads:
        tensors = run.arriving if site in dictionary.writes else run.arriving | run.leaving
        values[site] = tensors[site] if site in tensors else batch.state.values[site][run.index]
    return dictionary.read({site: value[:, at] for site, value in values.items()})

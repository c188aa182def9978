"""The exact oracle of edges: path patching, by running the model once for each source node.

    exact(u -> d)       grad_d m . (d(u') - d)        d a feature's activation, or an error
    exact(u -> output)  m(u') - m

In the run, u moves from its clean to its reference value, and every other site of the graph,
the embeddings included, sends on its clean tensor whatever arrives there; d is read from what
arrives. So the move reaches d only along paths that pass no other site. That is the edge whose
weight `circuits.attribution.edges` estimates. A feature is read as it answers this move, where the
estimate takes its slope over the whole way from the clean to the patch prompt.

Units are those of the metric; positive means that moving u to its reference value raises it.

Source: path patching, Goldowsky-Dill et al. 2023, arXiv:2304.05969.
Differs: the target's change is scaled by the metric's gradient to the target, where they let it
run on to the output, so that it is in the units of the weight it is held against.

Axes: `rows` pairs of a source and a prompt, `edges`, `sources`, `targets` those that are asked for.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.exact_effects import ROWS_AT_ONCE, TOKENS_AT_ONCE
from circuits.attribution.edges import node_change, to_output, upstream
from circuits.attribution.state import EMBED, BatchState
from circuits.graph import Node
from circuits.metrics.metric import Metric, SiteMetric, metric_at, on_clean
from hooked_qwen.forward import resume
from hooked_qwen.hooks import Activation, Edit, capture, intervene
from hooked_qwen.sites import Site
from saes.suite import Suite

Edge = tuple[Node, Node]


@torch.no_grad()
def exact_edges(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    metric: Metric,
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
    setting = _Setting(model, suite, state, gradients, metric)
    weights = torch.zeros(len(edges), len(state.rows), dtype=torch.float64)
    groups = _by_source(suite, metric, edges)
    if report is not None:
        report(len(edges) - sum(map(len, groups.values())))
    for site, members in groups.items():
        rows = {node: i for i, node in enumerate(dict.fromkeys(edges[e][0] for e in members))}
        columns = {node: i for i, node in enumerate(dict.fromkeys(edges[e][1] for e in members))}
        table = _table(setting, site, list(rows), list(columns))
        at = [(rows[u], columns[d]) for u, d in (edges[e] for e in members)]
        weights[members] = table[tuple(torch.tensor(at).T)]
        if report is not None:
            report(len(members))
    return weights


def _by_source(suite: Suite, metric: Metric, edges: Sequence[Edge]) -> dict[Site, list[int]]:
    """Indices of the edges that can exist, by their source's site."""
    sites = {node: _site(suite, node) for node in dict.fromkeys(chain.from_iterable(edges))}
    ends = {*sites.values()} - {EMBED}
    before = {e: to_output(suite, metric) if e is None else upstream(suite, e) for e in ends}
    found: dict[Site, list[int]] = defaultdict(list)
    for i, (source, target) in enumerate(edges):
        start, end = sites[source], sites[target]
        if start is None or start not in before.get(end, ()):
            continue
        p, q = source.position, target.position
        if p is None or q is None or p <= q:
            found[start].append(i)
    return found


def _site(suite: Suite, node: Node) -> Site | None:
    """The node's site; the output has none."""
    if node.kind == "logit":
        return None
    site = Site.parse(node.site)
    if site != EMBED and site not in suite:
        raise ValueError(
            f"{node} is at {site}, which has no dictionary: expected a node at one of embed, "
            f"{', '.join(map(str, suite))}, or the output"
        )
    return site


@dataclass(frozen=True)
class _Setting:
    """What all runs of one call share."""

    model: TransformerBridge
    suite: Suite
    state: BatchState
    gradients: Mapping[Site, Activation]
    metric: Metric


@dataclass(frozen=True)
class _Run:
    """One run: what reaches each site, what leaves it, and the stream that the output reads."""

    index: Int[Tensor, " rows"]
    "which prompt of the batch each row is"
    arriving: dict[Site, Activation]
    leaving: dict[Site, Activation]
    last: Float[Tensor, "rows 1 d_model"] | None


def _table(
    setting: _Setting, site: Site, sources: Sequence[Node], targets: Sequence[Node]
) -> Float[Tensor, "sources targets batch"]:
    """Every source's edge to every target on every prompt; all sources are at `site`."""
    state = setting.state
    clean = state.values[site]
    table = torch.zeros(len(sources), len(targets), len(clean), dtype=torch.float64)
    limit = max(1, min(ROWS_AT_ONCE, TOKENS_AT_ONCE // clean.shape[1]))
    # Many nodes move on few of the prompts, so more are looked at than fill one run.
    for some in torch.arange(len(sources)).split(max(1, 4 * limit // len(clean))):
        changes = torch.stack([_change(setting, site, sources[i]) for i in some.tolist()])
        moved, prompt = changes.flatten(2).any(-1).nonzero(as_tuple=True)
        for start in range(0, len(moved), limit):
            pick = slice(start, start + limit)
            row, index = moved[pick], prompt[pick]
            run = _run(setting, site, clean[index] + changes[row, index], index, targets)
            table[some[row], :, index] = _gaps(setting, run, targets)
    return table


def _change(setting: _Setting, site: Site, node: Node) -> Activation:
    """How the site's tensor changes when the node moves, at the node's position only."""
    change = node_change(setting.suite, setting.state, site, node)
    if node.position is None:
        return change
    return change * (torch.arange(change.shape[1]) == node.position).unsqueeze(-1)


def _run(
    setting: _Setting,
    site: Site,
    value: Float[Tensor, "rows pos d_model"],
    index: Int[Tensor, " rows"],
    targets: Sequence[Node],
) -> _Run:
    """Run with `value` leaving `site` and every other site held, to the last layer of `targets`."""
    model, suite, state = setting.model, setting.suite, setting.state
    to_output = any(node.kind == "logit" for node in targets)
    layers = [Site.parse(node.site).layer for node in targets if node.kind != "logit"]
    last = len(model.blocks) - 1 if to_output else max(layers)
    whole = site == EMBED or site.kind == "resid_post"
    first = site.layer + 1 if whole else site.layer
    resid = value if whole else state.values[Site("resid_pre", first)][index]
    read = {setting.metric.site} if isinstance(setting.metric, SiteMetric) else set()
    passed = [s for s in sorted({*suite, *suite.sources, *read}) if first <= s.layer <= last]
    leaving = {s: state.values[s][index] for s in passed if s in suite} | {site: value}
    edits = {s: _send(leaving[s]) for s in passed if s in suite}
    with capture(model, passed) as arriving, intervene(model, edits):
        arguments = state.arguments.rows(index)
        final = resume(model, resid, first, arguments, stop=last + 1)
    return _Run(index, arriving, leaving, final[:, -1:] if to_output else None)


def _send(value: Activation) -> Edit:
    return lambda _: value


def _gaps(setting: _Setting, run: _Run, targets: Sequence[Node]) -> Float[Tensor, "rows targets"]:
    """What the move of each row does to each target, in units of the metric."""
    gaps = torch.zeros(len(run.index), len(targets), dtype=torch.float64)
    groups: dict[tuple[str, int | None], list[int]] = defaultdict(list)
    for i, node in enumerate(targets):
        groups[node.site, node.position].append(i)
    for members in groups.values():
        nodes = [targets[i] for i in members]
        if nodes[0].kind == "logit":
            gaps[:, members] = _output_gap(setting, run).double().unsqueeze(-1)
        else:
            gaps[:, members] = _node_gaps(setting, run, nodes).double()
    return gaps


def _output_gap(setting: _Setting, run: _Run) -> Float[Tensor, " rows"]:
    rows, metric = setting.state.rows, setting.metric
    clean = on_clean(metric, setting.state.logits, rows)[run.index]
    if isinstance(metric, SiteMetric):
        leaving = run.leaving if metric.when == "leaving" else {}
        tensors = run.arriving | leaving
        return metric.read(tensors[metric.site], rows[run.index]) - clean
    assert run.last is not None, "a run to the output has its last stream"
    return metric_at(setting.model, run.last, metric, rows[run.index]) - clean


def _node_gaps(
    setting: _Setting, run: _Run, nodes: Sequence[Node]
) -> Float[Tensor, "rows targets"]:
    """The same for nodes of one site at one position: their gradient times their change."""
    site, position = Site.parse(nodes[0].site), nodes[0].position
    at = slice(None) if position is None else slice(position, position + 1)
    dictionary, clean = setting.suite[site], setting.state.sites[site]
    g = setting.gradients[site][:, at][run.index]
    f = dictionary.encode(_read(setting, run, dictionary.source, site)[:, at])
    columns = []
    for node in nodes:
        if node.feature == "error":
            error = run.arriving[site][:, at] - dictionary.decode(f)
            gap = (error - clean.error[:, at][run.index]) * g
        else:
            i = int(node.feature)
            gap = (f[..., i] - clean.f[:, at, i][run.index]) * (g @ dictionary.W_dec[i])
        columns.append(gap.flatten(1).sum(1))
    return torch.stack(columns, 1)


def _read(setting: _Setting, run: _Run, source: Site, target: Site) -> Activation:
    """The tensor that the dictionary of `target` encodes.

    Another dictionary's site is read after it, where its nodes have moved.
    """
    tensors = run.leaving if source in setting.suite and source != target else run.arriving
    return tensors[source] if source in tensors else setting.state.values[source][run.index]

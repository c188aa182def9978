"""Edge weights: how much of a node's effect on the metric reaches it from each node upstream.

    w(u -> d) = grad_d m . [dd/du] . (u' - u)         summed over positions of u and d as needed

The Jacobian is taken with every other site of the graph held at its value. With dictionaries at
`attn_out`, `mlp_out` and `resid_post` of each layer that is the rule of the source paper: from
attention to the stream the MLP is stopped, from the stream to the MLP attention is stopped, from
stream to stream both are. With fewer sites the same rule leaves the paths through other
modules in. Into a feature the edge uses the secant slope of the activation function, from the
clean to the reference pre-activation (see `circuits.attribution.decomposed_run.slopes`).

One forward pass is cut at every site of the graph: what arrives is recorded, what leaves is a new
leaf (see `circuits.attribution.cut_graph`). Each edge is then a vector-Jacobian product between an
arrival and the leaves before it. No gradient goes from one prompt to another, and on a prompt many
of the nodes do not respond, so a product takes on each prompt a different one of those that do: as
many products as a prompt has such nodes at most, not as many as there are nodes.

Units are those of the metric; positive means that moving u to its reference value raises it. At
the clean run the weights into a node need not add up to its effect: the local Jacobian meets the
whole move, and attention patterns and gates change on the way. Along the way they do, but for
features whose slope is held to its range.

Source: Marks et al. 2024, arXiv:2403.19647.
Differs: weights are averaged over prompts before any threshold is applied; an edge into a
feature uses the secant slope of the activation function from clean to reference, not its gradient
at clean; the Jacobian can be taken along the way.

Axes: `targets` the downstream nodes pulled back together, `sources` the upstream nodes of one site,
`pairs` a target and a prompt (see `circuits.attribution.vjp_batches`), `vjps` the products computed
at once, `run` the positions that are run, `width` those of one node.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.chosen_rows import ChosenRows, rows_of
from circuits.attribution.cut_graph import CutModel, cut, first_change
from circuits.attribution.direct_paths import reaching_node, sites_of, to_output
from circuits.attribution.state import BatchState
from circuits.attribution.vjp_batches import EdgeTargets, VJPBatch, order_of, together, vjp_batches
from circuits.graph import EdgeWeights
from circuits.metrics.metric import SiteMetric
from hooked_qwen.hooks import Activation
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.dictionary import by_site
from saes.features import Features
from saes.suite import Suite

LOGIT = "logit"


@dataclass(frozen=True)
class _EdgeBatch:
    """What all products of one batch of prompts share."""

    pieces: CutModel
    analysis: Analysis
    state: BatchState
    gradients: Mapping[Site, Activation]
    writing: Mapping[Site, Sequence[Node]]
    "the nodes that write each site"
    changes: Mapping[str, Features]
    "how the features of each dictionary change"
    rows: Mapping[str, ChosenRows]
    "of each dictionary the rows of the features among the nodes"

    @property
    def suite(self) -> Suite:
        return self.analysis.suite

    def sources(self, node: Node | None) -> list[Site]:
        """The sites with nodes that can reach `node` (None: the output) directly."""
        if node is None:
            found = to_output(self.suite, self.analysis.metric)
        else:
            found = reaching_node(self.suite, node)
        return [s for s in found if s in self.writing]


def edge_weights(
    analysis: Analysis,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    nodes: Iterable[Node],
) -> EdgeWeights:
    """Weights of all edges among `nodes` and to the logit, summed over the batch's prompts.

    `gradients` are the estimator's: the metric's gradient to each site's tensor. The Jacobian is
    taken at the clean run, or, with `config.edge_steps`, is the mean over as many points on the
    way from clean to reference, (j + 1/2) / steps of it at all sites alike: then the weights into
    a node add up to its effect, if `nodes` are all that change.
    """
    steps = analysis.config.edge_steps
    # Midpoints of equal parts; at 0, the clean run, the Jacobian misses what is not linear.
    points = [(j + 0.5) / steps for j in range(steps)] or [0.0]
    weights: EdgeWeights = {}
    rows = rows_of(analysis.suite, nodes := list(nodes))
    with state.under(state.every_row):
        for share in points:
            found = _weights_at(analysis, state, gradients, nodes, rows, share)
            for edge, weight in found.items():
                weights[edge] = weights.get(edge, 0.0) + weight / len(points)
    return weights


def _weights_at(
    analysis: Analysis,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    nodes: Sequence[Node],
    rows: Mapping[str, ChosenRows],
    share: float,
) -> EdgeWeights:
    suite, metric = analysis.suite, analysis.metric
    writing: dict[Site, list[Node]] = defaultdict(list)
    for node in nodes:
        for site in sites_of(suite, node):
            writing[site].append(node)
    first = first_change(analysis.model, state)
    if isinstance(metric, SiteMetric):
        # Such a metric may read positions before the first at which a node changes; the cut run
        # must have them too.
        read = (metric.weights_of(state.rows) != 0).any(0)
        first = min(first, int(read.int().argmax()))
    pieces = cut(analysis, state, first=first, share=share)
    changes = {name: state.features[name].change for name in suite}
    batch = _EdgeBatch(pieces, analysis, state, gradients, dict(writing), changes, rows)
    found = [
        part
        for group in together(suite, state, nodes, pieces.first)
        for part in _tables(batch, group)
    ]
    output = [Node(LOGIT, LOGIT)]
    found += [(source, output, table) for source, table in _to_output(batch).items()]
    return _as_weights(suite, writing, found)


def _tables(
    batch: _EdgeBatch, group: Sequence[EdgeTargets]
) -> Iterator[tuple[Site, Sequence[Node], Float[Tensor, "nodes sources"]]]:
    """Edges to the nodes of each member of `group`, from those of each site that reaches it."""
    reach = [batch.sources(targets.nodes[0]) for targets in group]
    sources = sorted({source for some in reach for source in some})
    if not sources:
        return
    sizes = [len(targets.nodes) for targets in group]
    like = batch.state.embed_change
    tables = {
        s: like.new_zeros(sum(sizes), len(batch.writing[s]), dtype=torch.double) for s in sources
    }
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    for some in vjp_batches(batch.state, group, batch.pieces.first):
        for source, gradient in _pull_back(batch, group, some, sources).items():
            found = _products(batch, source, gradient).double()
            for start, members in zip(starts, some, strict=True):
                # A product holds a different target on each prompt, and no gradient goes from one
                # prompt to another: the row of the pair's own prompt is that target's alone.
                values = found[members.vjp, members.prompt]
                tables[source].index_add_(0, start + members.node, values)
    for source, table in tables.items():
        for targets, reached, part in zip(group, reach, table.split(sizes), strict=True):
            if source in reached:
                yield source, targets.nodes, part


def _to_output(batch: _EdgeBatch) -> dict[Site, Float[Tensor, "1 sources"]]:
    """Edges from the nodes that reach the output directly."""
    sources, value = batch.sources(None), batch.pieces.metric
    if not sources:
        return {}
    pulled = batch.pieces.pull(sources, [value], [torch.ones_like(value).unsqueeze(0)])
    if (last := to_output(batch.suite, batch.analysis.metric)[0]) in pulled:
        # Nothing lies between: what reaches the metric directly is the whole effect.
        pulled[last] = batch.gradients[last][:, batch.pieces.first :].unsqueeze(0)
    return {s: _products(batch, s, gradient).double().sum(1) for s, gradient in pulled.items()}


def _pull_back(
    batch: _EdgeBatch,
    group: Sequence[EdgeTargets],
    some: Sequence[VJPBatch],
    sources: Sequence[Site],
) -> dict[Site, Float[Tensor, "vjps batch run d_model"]]:
    """For the node of each pair, the gradient of `grad_d m * d` to the leaves at `sources`."""
    pieces, n_vjps = batch.pieces, some[0].n_vjps
    cotangents: dict[Tensor, Tensor] = {}
    for targets, here in zip(group, some, strict=True):
        at, prompt = targets.at[here.node], here.prompt.unsqueeze(-1)
        for read, rows in _cotangents(batch, targets, here.node, prompt):
            if read not in cotangents:
                cotangents[read] = read.new_zeros(n_vjps, *read.shape)
            where = here.vjp.unsqueeze(-1), prompt, at - pieces.first
            # Added: an error reads its site as it is, and often again through its features.
            cotangents[read].index_put_(where, rows, accumulate=True)
    return pieces.pull(sources, list(cotangents), list(cotangents.values()))


def _cotangents(
    batch: _EdgeBatch,
    targets: EdgeTargets,
    nodes: Int[Tensor, " pairs"],
    prompt: Int[Tensor, "pairs 1"],
) -> Iterator[tuple[Tensor, Float[Tensor, "pairs width d_site"]]]:
    """Gradients of `grad_d m * d` to the tensors that are read.

    A feature reads its sites through its encoder row. The error is the site's tensor less what the
    features write, so it reads the tensor as it is and the features' sites through all features.
    """
    suite, at = batch.suite, targets.at[nodes]
    if targets.features is not None and targets.slope is not None:
        name, own = targets.name, batch.rows[targets.name]
        i = own.at(targets.features[nodes])
        g = torch.cat([batch.gradients[s][prompt, at] for s in suite.writes_of(name)], -1)
        # The chain rule from the metric back to what is read: dm/df = g . W_dec_i, then the secant
        # slope in place of the activation function's derivative, then W_enc_i.
        along = (g * own.W_dec[i].unsqueeze(1)).sum(-1)
        along = along * targets.slope[nodes, prompt.squeeze(-1)]
        yield from _as_read(batch, name, along.unsqueeze(-1) * own.W_enc[i].unsqueeze(1))
        return
    site = Site.parse(targets.name)
    g, response = batch.gradients[site][prompt, at], batch.state.errors[site].response
    if response is not None:
        g = g * response[prompt, at].unsqueeze(-1)
    # error = x - sum of f W_dec - b_dec: x with the sign +, all features that respond with -.
    yield batch.pieces.arrivals[site], g
    for name in suite.writing(site):
        dictionary, slope = suite[name], batch.state.features[name].slope[prompt, at]
        parts = [g if s == site else torch.zeros_like(g) for s in dictionary.writes]
        along = dictionary.along(torch.cat(parts, -1), slope.index)
        yield from _as_read(batch, name, -dictionary.read_by(slope.times(along)))


def _as_read(
    batch: _EdgeBatch, name: str, rows: Float[Tensor, "pairs width d_source"]
) -> Iterator[tuple[Tensor, Float[Tensor, "pairs width d_site"]]]:
    """Rows of what a dictionary reads, for the tensor at each of its sites."""
    for site, part in by_site(batch.suite.reads_of(name), rows).items():
        yield batch.pieces.read(site, batch.suite.writes_of(name)), part


def _products(
    batch: _EdgeBatch, site: Site, gradient: Float[Tensor, "vjps batch run d_model"]
) -> Float[Tensor, "vjps batch sources"]:
    """The pulled-back gradients times each upstream node's change, over the node's positions.

    `gradient` is at the last positions, those that were run; at others no node changes. Features at
    the same position share one product with their decoder rows.
    """
    state, nodes, first = batch.state, batch.writing[site], batch.pieces.first
    found = gradient.new_zeros(*gradient.shape[:2], len(nodes))
    alike: dict[tuple[str, str, int | None], list[int]] = defaultdict(list)
    for column, node in enumerate(nodes):
        if node.position is None or node.position >= first:
            alike[node.site, node.kind, node.position].append(column)
    for (name, kind, position), columns in alike.items():
        at = slice(first, None) if position is None else slice(position, position + 1)
        g = gradient if position is None else gradient[:, :, position - first, None]
        if kind == "feature":
            own, writes = batch.rows[name], batch.suite.writes_of(name)
            chosen = torch.tensor([int(nodes[c].feature) for c in columns], device=g.device)
            # g . (f' - f) W_dec_i as (g . W_dec_i)(f' - f): no change of d_model for each node.
            rows = by_site(writes, own.W_dec[own.at(chosen)])[site]
            changes = batch.changes[name][:, at].of(chosen)
            found[..., columns] = ((g @ rows.T) * changes).sum(2)
            continue
        move = state.embed_change if kind == "token" else state.errors[site].change
        found[..., columns] = (g * move[:, at]).sum((2, 3)).unsqueeze(-1)
    return found


def _as_weights(
    suite: Suite,
    writing: Mapping[Site, Sequence[Node]],
    tables: Sequence[tuple[Site, Sequence[Node], Float[Tensor, "_ _"]]],
) -> EdgeWeights:
    """The tables as weights, without edges that go back to what comes first in the graph.

    The targets of a table are alike: of one dictionary, errors of one site, or the output.
    """
    weights: EdgeWeights = {}
    if not tables:
        return weights
    # Read in one go: each look makes the host wait for the device.
    values = iter(torch.cat([table.flatten() for *_, table in tables]).tolist())
    starts = {site: [order_of(suite, node) for node in nodes] for site, nodes in writing.items()}
    for site, targets, _ in tables:
        end = None if targets[0].kind == "logit" else order_of(suite, targets[0])
        earlier = [end is None or start < end for start in starts[site]]
        for target in targets:
            for source, counts in zip(writing[site], earlier, strict=True):
                value = next(values)
                if counts:
                    weights[source, target] = weights.get((source, target), 0.0) + value
    return weights

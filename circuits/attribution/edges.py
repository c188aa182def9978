"""Edge weights: how much of a node's effect on the metric reaches it from each node upstream.

    w(u -> d) = grad_d m . [dd/du] . (u' - u)         summed over positions of u and d as needed

The Jacobian is taken with every other site of the graph held at its value. With dictionaries at
`attn_out`, `mlp_out` and `resid_post` of each layer that is the rule of the source paper: from
attention to the stream the MLP is stopped, from the stream to the MLP attention is stopped, from
stream to stream both are. With fewer sites the same rule leaves the paths through unwatched
modules in. A feature answers its pre-activation by the slope from its clean to its reference
value (see `circuits.attribution.state.slopes`).

One forward pass is cut at every site of the graph: what arrives is recorded, what leaves is a new
leaf (see `circuits.attribution.cut_graph`). Each edge is then a vector-Jacobian product between an
arrival and the leaves before it. Prompts do not meet in it, and on a prompt many of the nodes do
not answer, so a product takes on each prompt another of the nodes that do: as many products as a
prompt has such nodes at most, not as many as there are nodes.

Units are those of the metric; positive means that moving u to its reference value raises it. At
the clean run the weights into a node need not add up to its effect: the local Jacobian meets the
whole move, and attention patterns and gates change on the way. Along the way they do, but for
features whose slope is held to its range.

Source: Marks et al. 2024, arXiv:2403.19647.
Differs: weights are averaged over prompts before any threshold is applied; features answer by
their slope between clean and reference, not by their gradient at clean; the Jacobian can be taken
along the way.

Axes: `targets` the downstream nodes pulled back together, `sources` the upstream nodes of one site,
`places` a target on a prompt (see `circuits.attribution.vjp_batches`), `slots` the products made at
once, `run` the positions that are run, `width` those of one node.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.cut_graph import CutModel, cut, first_move
from circuits.attribution.state import EMBED, BatchState
from circuits.attribution.vjp_batches import Places, Targets, places, together
from circuits.graph import Node
from circuits.metrics.metric import Metric, SiteMetric, reaching
from hooked_qwen.hooks import Activation
from hooked_qwen.sites import Site
from saes.suite import Suite

EdgeWeights = dict[tuple[Node, Node], float]
LOGIT = "logit"


@dataclass(frozen=True)
class _Setting:
    """What all products of one batch of prompts share."""

    pieces: CutModel
    suite: Suite
    state: BatchState
    gradients: Mapping[Site, Activation]
    by_site: Mapping[Site, Sequence[Node]]
    metric: Metric

    def sources(self, site: Site | None) -> list[Site]:
        """The sites with nodes that can reach `site` (None: the output) directly."""
        found = to_output(self.suite, self.metric) if site is None else upstream(self.suite, site)
        return [s for s in found if s in self.by_site]


def edge_weights(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    metric: Metric,
    nodes: Iterable[Node],
    *,
    steps: int = 0,
) -> EdgeWeights:
    """Weights of all edges among `nodes` and to the logit, summed over the batch's prompts.

    `gradients` are the estimator's: the metric's gradient to each site's tensor. The Jacobian is
    taken at the clean run, or, with `steps`, is the mean over as many points on the way from clean
    to reference, (j + 1/2) / steps of it at all sites alike: then the weights into a node add up
    to its effect, if `nodes` are all that change.
    """
    points = [(j + 0.5) / steps for j in range(steps)] or [0.0]
    weights: EdgeWeights = {}
    with state.under(state.every_row):
        for moved in points:
            found = _weights_at(model, suite, state, gradients, metric, nodes, moved)
            for edge, weight in found.items():
                weights[edge] = weights.get(edge, 0.0) + weight / len(points)
    return weights


def _weights_at(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    metric: Metric,
    nodes: Iterable[Node],
    moved: float,
) -> EdgeWeights:
    by_site: dict[Site, list[Node]] = defaultdict(list)
    for node in nodes:
        by_site[Site.parse(node.site)].append(node)
    first = first_move(model, state)
    if isinstance(metric, SiteMetric):
        last = state.clean.tokens.shape[1] - 1
        first = min(first, last - int(metric.back[state.rows].max()))
    pieces = cut(model, suite, state, metric, first=first, moved=moved)
    setting = _Setting(pieces, suite, state, gradients, dict(by_site), metric)
    weights: EdgeWeights = {}
    for group in together(suite, state, by_site, pieces.first):
        for source, targets, table in _tables(setting, group):
            _add(weights, by_site[source], targets, table)
    for source, table in _to_output(setting).items():
        _add(weights, by_site[source], [Node(LOGIT, LOGIT)], table)
    return weights


def upstream(sites: Iterable[Site], site: Site | None) -> list[Site]:
    """The sites whose leaves can reach `site` directly (None: the end), latest first.

    They go back to the last cut through the whole residual stream.
    """
    found = []
    for earlier in sorted(sites, reverse=True):
        if site is None or earlier < site:
            found.append(earlier)
            if earlier.kind == "resid_post":
                return found
    return [*found, EMBED]


def to_output(suite: Suite, metric: Metric) -> list[Site]:
    """The sites whose leaves can reach the metric directly, latest first."""
    return upstream(reaching(metric, suite), None)


def _tables(
    setting: _Setting, group: Sequence[Targets]
) -> Iterator[tuple[Site, Sequence[Node], Float[Tensor, "nodes sources"]]]:
    """Edges to the nodes of each member of `group`, from those of each site that reaches it."""
    reach = [setting.sources(targets.site) for targets in group]
    sources = sorted({source for some in reach for source in some})
    if not sources:
        return
    sizes = [len(targets.nodes) for targets in group]
    tables = {s: torch.zeros(sum(sizes), len(setting.by_site[s])).double() for s in sources}
    for some in places(setting.state, group, setting.pieces.first):
        for source, gradient in _pull_back(setting, group, some, sources).items():
            found = _products(setting, source, gradient).double()[some.slot, some.prompt]
            tables[source].index_add_(0, some.node.cpu(), found.cpu())
    for source, table in tables.items():
        for targets, reached, part in zip(group, reach, table.split(sizes), strict=True):
            if source in reached:
                yield source, targets.nodes, part


def _to_output(setting: _Setting) -> dict[Site, Float[Tensor, "1 sources"]]:
    """Edges from the nodes that reach the output directly."""
    sources, value = setting.sources(None), setting.pieces.metric
    if not sources:
        return {}
    pulled = _pull(setting.pieces, sources, [value], [torch.ones_like(value).unsqueeze(0)])
    if (last := to_output(setting.suite, setting.metric)[0]) in pulled:
        # Nothing lies between: what reaches the metric directly is the whole effect.
        pulled[last] = setting.gradients[last][:, setting.pieces.first :].unsqueeze(0)
    return {s: _products(setting, s, gradient).double().sum(1) for s, gradient in pulled.items()}


def _pull_back(
    setting: _Setting, group: Sequence[Targets], some: Places, sources: Sequence[Site]
) -> dict[Site, Float[Tensor, "slots batch run d_model"]]:
    """For the node in each place, the gradient of `grad_d m * d` to the leaves at `sources`."""
    pieces, slots, before = setting.pieces, int(some.slot.max()) + 1, 0
    cotangents: dict[Tensor, Tensor] = {}
    for targets in group:
        end = before + len(targets.nodes)
        here = some.where((some.node >= before) & (some.node < end), node=before)
        at, prompt = targets.at[here.node], here.prompt.unsqueeze(-1)
        for site, rows in _cotangents(setting, targets, here.node, prompt).items():
            read = pieces.read(site, targets.site)
            if read not in cotangents:
                cotangents[read] = read.new_zeros(slots, *read.shape)
            cotangents[read][here.slot.unsqueeze(-1), prompt, at - pieces.first] = rows
        before = end
    return _pull(pieces, sources, list(cotangents), list(cotangents.values()))


def _cotangents(
    setting: _Setting,
    targets: Targets,
    nodes: Int[Tensor, " places"],
    prompt: Int[Tensor, "places 1"],
) -> dict[Site, Float[Tensor, "places width d_site"]]:
    """Gradient of `grad_d m * d` to what the dictionary reads and, for an error, to its target.

    A feature reads the source through its encoder row. The error is the target less what the
    features write, so it reads the target as it is and the source through all features.
    """
    dictionary, at = setting.suite[targets.site], targets.at[nodes]
    g = setting.gradients[targets.site][prompt, at]
    slope = setting.state.sites[targets.site].slope
    if targets.features is None:
        along = dictionary.along(g) * slope[prompt, at]
        through = {dictionary.source: -along @ dictionary.W_enc}
        return through | {targets.site: through.get(targets.site, 0.0) + g}
    i = targets.features[nodes].unsqueeze(-1)
    along = (g * dictionary.W_dec[i]).sum(-1) * slope[prompt, at, i]
    return {dictionary.source: along.unsqueeze(-1) * dictionary.W_enc[i]}


def _pull(
    pieces: CutModel,
    sources: Sequence[Site],
    outputs: Sequence[Tensor],
    cotangents: Sequence[Tensor],
) -> dict[Site, Float[Tensor, "slots batch run d_model"]]:
    """Gradients to the leaves at `sources`, at the positions that were run."""
    pulled = torch.autograd.grad(
        outputs,
        [pieces.leaves[s] for s in sources],
        cotangents,
        is_grads_batched=True,
        retain_graph=True,
        allow_unused=True,
    )
    return {s: x for s, x in zip(sources, pulled, strict=True) if x is not None}


def _products(
    setting: _Setting, site: Site, gradient: Float[Tensor, "slots batch run d_model"]
) -> Float[Tensor, "slots batch sources"]:
    """The pulled-back gradients times each upstream node's move, over the node's positions.

    `gradient` is at the last positions, those that were run; at others nothing moves. Features at
    the same position share one product with their decoder rows.
    """
    suite, state, nodes = setting.suite, setting.state, setting.by_site[site]
    first = setting.pieces.first
    found = gradient.new_zeros(*gradient.shape[:2], len(nodes))
    by_position: dict[int | None, list[int]] = defaultdict(list)
    for column, node in enumerate(nodes):
        if node.position is None or node.position >= first:
            by_position[node.position].append(column)
    for position, columns in by_position.items():
        at = slice(first, None) if position is None else slice(position, position + 1)
        g = gradient if position is None else gradient[:, :, position - first, None]
        features = [c for c in columns if nodes[c].kind == "feature"]
        if features:
            chosen = [int(nodes[c].feature) for c in features]
            along = g @ suite[site].W_dec[chosen].T
            found[..., features] = (along * state.sites[site].changes(at, chosen)).sum(2)
        for column in columns:
            if nodes[column].kind != "feature":
                move = node_change(suite, state, site, nodes[column])[:, at]
                found[..., column] = einsum(
                    g, move, "slots batch pos d, batch pos d -> slots batch"
                )
    return found


def _add(
    weights: EdgeWeights,
    sources: Sequence[Node],
    targets: Sequence[Node],
    values: Float[Tensor, "targets sources"],
) -> None:
    for target, row in zip(targets, values.tolist(), strict=True):
        for source, value in zip(sources, row, strict=True):
            weights[source, target] = weights.get((source, target), 0.0) + value


def node_change(suite: Suite, state: BatchState, site: Site, node: Node) -> Activation:
    """How the site's tensor changes when the node moves to its reference, at every position."""
    if site == EMBED:
        return state.embed_change
    if node.feature == "error":
        return state.sites[site].error_change
    change = state.sites[site].f_change[..., int(node.feature), None]
    return change * suite[site].W_dec[int(node.feature)]

"""Edge weights: how much of a node's effect on the metric reaches it from each node upstream.

    w(u -> d) = grad_d m . [dd/du] . (u' - u)         summed over positions of u and d as needed

The Jacobian is taken with every other site of the graph held at its value. With dictionaries at
`attn_out`, `mlp_out` and `resid_post` of each layer that is the rule of the source paper: from
attention to the stream the MLP is stopped, from the stream to the MLP attention is stopped, from
stream to stream both are. With fewer sites the same rule leaves the paths through unwatched
modules in. A feature answers its pre-activation by the slope from its clean to its reference
value (see `circuits.attribution.states.slopes`).

One forward pass is cut at every site of the graph: what arrives is recorded, what leaves is a new
leaf (see `circuits.attribution.cut`). Each edge is then a vector-Jacobian product between an
arrival and the leaves before it. Prompts do not meet in it, and on a prompt many of the nodes do
not answer, so a product takes on each prompt another of the nodes that do: as many products as a
prompt has such nodes at most, not as many as there are nodes.

Units are those of the metric; positive means that moving u to its reference value raises it.

Source: Marks et al. 2024, arXiv:2403.19647.
Differs: weights are averaged over prompts before any threshold is applied; features answer by
their slope between clean and reference, not by their gradient at clean.

Axes: `slots` the products made together, `sources` the upstream nodes of one site.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.cut import CutModel, cut, first_move
from circuits.attribution.states import EMBED, BatchState
from circuits.graph import Node
from circuits.metric import Metric
from hooked_qwen.hooks import Activation
from hooked_qwen.sites import Site
from saes.suite import Suite

EdgeWeights = dict[tuple[Node, Node], float]
LOGIT = "logit"
TENSOR_ROWS_AT_ONCE = 16_384
"Rows (slot, prompt, position) in one batched vector-Jacobian product."


def edge_weights(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    metric: Metric,
    nodes: Iterable[Node],
) -> EdgeWeights:
    """Weights of all edges among `nodes` and to the logit, summed over the batch's prompts.

    `gradients` are the estimator's: the metric's gradient to each site's tensor.
    """
    pieces = cut(model, suite, state, metric, first=first_move(model, state))
    by_site: dict[Site, list[Node]] = defaultdict(list)
    for node in nodes:
        by_site[Site.parse(node.site)].append(node)
    weights: EdgeWeights = {}
    for group in _together(suite, state, by_site, pieces.first):
        for source, table in _tables(pieces, suite, state, gradients, group, by_site).items():
            for targets, part in zip(
                group, table.split([len(t.nodes) for t in group]), strict=True
            ):
                if source in upstream(suite, targets.site):
                    _add(weights, by_site[source], targets.nodes, part)
    for source, row in _to_output(pieces, suite, state, gradients, by_site).items():
        _add(weights, by_site[source], [Node(LOGIT, LOGIT)], row)
    return weights


def _tables(
    pieces: CutModel,
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    group: Sequence["_Targets"],
    by_site: Mapping[Site, Sequence[Node]],
) -> dict[Site, Float[Tensor, "targets sources"]]:
    """Edges from the nodes of each site before `group` to all of its nodes, one after another."""
    sources = sorted({s for t in group for s in upstream(suite, t.site)} & by_site.keys())
    rows = sum(len(targets.nodes) for targets in group)
    tables = {s: torch.zeros(rows, len(by_site[s])).double() for s in sources}
    for places in _places(state, group, pieces.first) if sources else ():
        pulled = _pull_back(pieces, suite, state, gradients, group, places, sources)
        for source, gradient in pulled.items():
            found = _products(suite, state, source, by_site[source], gradient).double()
            found = found[places.slot, places.prompt].cpu()
            tables[source].index_add_(0, places.node.cpu(), found)
    return tables


def _to_output(
    pieces: CutModel,
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    by_site: Mapping[Site, Sequence[Node]],
) -> dict[Site, Float[Tensor, "1 sources"]]:
    """Edges from the nodes that reach the output directly."""
    sources = [s for s in upstream(suite, None) if s in by_site]
    if not sources:
        return {}
    value = pieces.metric
    pulled = _pull(pieces, sources, [value], [torch.ones_like(value).unsqueeze(0)])
    if (last := max(suite)) in pulled:
        # Nothing lies between: what reaches the metric directly is the whole effect.
        pulled[last] = gradients[last][:, pieces.first :].unsqueeze(0)
    return {
        s: _products(suite, state, s, by_site[s], gradient).double().sum(1)
        for s, gradient in pulled.items()
    }


def upstream(suite: Suite, site: Site | None) -> list[Site]:
    """The sites whose leaves can reach `site` directly (None: the metric), latest first.

    They go back to the last cut through the whole residual stream.
    """
    found = []
    for earlier in sorted(suite, reverse=True):
        if site is None or earlier < site:
            found.append(earlier)
            if earlier.kind == "resid_post":
                return found
    return [*found, EMBED]


@dataclass(frozen=True)
class _Targets:
    """Downstream nodes of one site, all features or all errors, as indices."""

    site: Site
    nodes: Sequence[Node]
    features: Int[Tensor, " targets"] | None
    at: Int[Tensor, "targets width"]
    "positions in the prompt: one with positions kept, else all that are run"
    answers: Bool[Tensor, "targets batch"]
    "on which prompts a node changes at all with what it reads, at the positions that are run"


@dataclass(frozen=True)
class _Places:
    """Where each downstream node is pulled back, on each prompt that it answers on."""

    node: Int[Tensor, " places"]
    prompt: Int[Tensor, " places"]
    slot: Int[Tensor, " places"]

    def where(self, these: Bool[Tensor, " places"], *, node: int = 0, slot: int = 0) -> "_Places":
        """Some of the places, nodes and slots counted from those given."""
        return _Places(self.node[these] - node, self.prompt[these], self.slot[these] - slot)


def _together(
    suite: Suite, state: BatchState, by_site: Mapping[Site, Sequence[Node]], first: int
) -> list[list[_Targets]]:
    """Nodes that are pulled back together: those behind the same modules of their layer.

    An error reads its target too, so that of a transcoder is behind the MLP and features are not.
    """
    groups: dict[tuple[int, tuple[Site, ...]], list[_Targets]] = {}
    alike: dict[tuple[Site, bool, bool], list[Node]] = defaultdict(list)
    for site in sorted(set(by_site) - {EMBED}):
        for node in by_site[site]:
            alike[site, node.feature == "error", node.position is None].append(node)
    for (site, is_error, _), nodes in alike.items():
        read = site if is_error else suite[site].source
        modules = [Site(kind, read.layer) for kind in ("attn_out", "mlp_out")]
        behind = tuple(m for m in modules if m == read or (m < read and m not in suite))
        groups.setdefault((read.layer, behind), []).append(_targets(state, site, nodes, first))
    return list(groups.values())


def _targets(state: BatchState, site: Site, nodes: Sequence[Node], first: int) -> _Targets:
    slope = state.sites[site].slope
    everywhere = list(range(first, slope.shape[1]))
    at = torch.tensor([everywhere if n.position is None else [n.position] for n in nodes])
    at = at.to(slope.device)
    run = (at >= first).all(-1, keepdim=True).expand(-1, len(slope))
    if nodes[0].feature == "error":
        return _Targets(site, nodes, None, at, run)
    features = torch.tensor([int(n.feature) for n in nodes]).to(slope.device)
    answers = slope[:, at, features.unsqueeze(-1)].any(-1).T
    return _Targets(site, nodes, features, at, answers & run)


def _places(state: BatchState, group: Sequence[_Targets], first: int) -> Iterator[_Places]:
    """A slot for each node and prompt, the n-th of a prompt's nodes in slot n, some at a time.

    Nodes are counted through the whole group.
    """
    answers = torch.cat([targets.answers for targets in group])
    slots = answers.long().cumsum(0) - 1
    node, prompt = answers.nonzero(as_tuple=True)
    places = _Places(node, prompt, slots[node, prompt])
    size = max(1, TENSOR_ROWS_AT_ONCE // state.clean.tokens[:, first:].numel())
    for start in range(0, int(slots.max()) + 1, size):
        some = (places.slot >= start) & (places.slot < start + size)
        yield places.where(some, slot=start)


def _pull_back(
    pieces: CutModel,
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    group: Sequence[_Targets],
    places: _Places,
    sources: Sequence[Site],
) -> dict[Site, Float[Tensor, "slots batch run d_model"]]:
    """For the node in each place, the gradient of `grad_d m * d` to the leaves at `sources`."""
    slots, before = int(places.slot.max()) + 1, 0
    cotangents: dict[Site, Tensor] = {}
    for targets in group:
        end = before + len(targets.nodes)
        here = places.where((places.node >= before) & (places.node < end), node=before)
        at, prompt = targets.at[here.node], here.prompt.unsqueeze(-1)
        for site, rows in _cotangents(suite, state, gradients, targets, here.node, prompt).items():
            if site not in cotangents:
                arrival = pieces.arrivals[site]
                cotangents[site] = arrival.new_zeros(slots, *arrival.shape)
            cotangents[site][here.slot.unsqueeze(-1), prompt, at - pieces.first] = rows
        before = end
    outputs = [pieces.arrivals[site] for site in cotangents]
    return _pull(pieces, sources, outputs, list(cotangents.values()))


def _cotangents(
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    targets: _Targets,
    nodes: Int[Tensor, " places"],
    prompt: Int[Tensor, "places 1"],
) -> dict[Site, Float[Tensor, "places width d_site"]]:
    """Gradient of `grad_d m * d` to what the dictionary reads and, for an error, to its target.

    A feature reads the source through its encoder row. The error is the target less what the
    features write, so it reads the target as it is and the source through all features.
    """
    dictionary, at = suite[targets.site], targets.at[nodes]
    g, slope = gradients[targets.site][prompt, at], state.sites[targets.site].slope
    if targets.features is None:
        along = g @ dictionary.W_dec.T * slope[prompt, at]
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
    suite: Suite,
    state: BatchState,
    site: Site,
    nodes: Sequence[Node],
    gradient: Float[Tensor, "slots batch run d_model"],
) -> Float[Tensor, "slots batch sources"]:
    """The pulled-back gradients times each upstream node's move, over the node's positions.

    `gradient` is at the last positions, those that were run; at others nothing moves. Features at
    the same position share one product with their decoder rows.
    """
    first = state.embed_change.shape[1] - gradient.shape[2]
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

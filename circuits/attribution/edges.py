"""Edge weights: how much of a node's effect on the metric reaches it from each node upstream.

    w(u -> d) = grad_d m . [dd/du] . (u' - u)         summed over positions of u and d as needed

The Jacobian is taken with every other site of the graph held at its value. With dictionaries at
`attn_out`, `mlp_out` and `resid_post` of each layer that is the rule of the source paper: from
attention to the stream the MLP is stopped, from the stream to the MLP attention is stopped, from
stream to stream both are. With fewer sites the same rule leaves the paths through unwatched
modules in. A feature answers its pre-activation by the slope from its clean to its reference
value (see `circuits.attribution.states.slopes`).

One forward pass cuts the model at every site of the graph: what arrives is recorded, what leaves
is a new leaf. Each edge is then a vector-Jacobian product between an arrival and the leaves
before it, batched over the downstream nodes.

Units are those of the metric; positive means that moving u to its reference value raises it.

Source: Marks et al. 2024, arXiv:2403.19647.
Differs: weights are averaged over prompts before any threshold is applied; features answer by
their slope between clean and reference, not by their gradient at clean.

Axes: `nodes` the downstream nodes of one site.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.states import EMBED, BatchState
from circuits.graph import Node
from circuits.metric import Metric
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import Activation, Edit, intervene
from hooked_qwen.sites import Site
from saes.suite import Suite

EdgeWeights = dict[tuple[Node, Node], float]
LOGIT = "logit"
TENSOR_ROWS_AT_ONCE = 16_384
"Rows (node, prompt, position) in one batched vector-Jacobian product."


@dataclass(frozen=True)
class CutModel:
    """One forward pass in pieces: what arrives at each site, and the leaf that leaves it."""

    arrivals: dict[Site, Activation]
    leaves: dict[Site, Activation]
    metric: Float[Tensor, ""]


def cut(model: TransformerBridge, suite: Suite, state: BatchState, metric: Metric) -> CutModel:
    """Run the clean prompts with the graph cut at the embeddings and at every site of `suite`."""
    arrivals: dict[Site, Activation] = {}
    leaves: dict[Site, Activation] = {}

    def sever(site: Site) -> Edit:
        def edit(value: Activation) -> Activation:
            arrivals[site] = value
            leaves[site] = value.detach().requires_grad_()
            return leaves[site]

        return edit

    def watch(site: Site) -> Edit:
        def edit(value: Activation) -> Activation:
            arrivals[site] = value
            return value

        return edit

    edits = {site: watch(site) for site in suite.sources if site not in suite}
    edits |= {site: sever(site) for site in (EMBED, *suite)}
    with intervene(model, edits):
        value = metric(last_logits(model, state.clean), state.rows).sum()
    return CutModel(arrivals, leaves, value)


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
    pieces = cut(model, suite, state, metric)
    by_site: dict[Site, list[Node]] = defaultdict(list)
    for node in nodes:
        by_site[Site.parse(node.site)].append(node)
    weights: EdgeWeights = {}
    for site in sorted(by_site):
        if site == EMBED:
            continue
        sources = [s for s in upstream(suite, site) if s in by_site]
        for some in _chunks(by_site[site], state):
            pulled = _pull_back(pieces, suite, state, gradients, site, some, sources)
            _contract(weights, pulled, suite, state, by_site, some)
    sources = [s for s in upstream(suite, None) if s in by_site]
    if sources:
        direct = torch.autograd.grad(pieces.metric, [pieces.leaves[s] for s in sources])
        pulled = {s: g.unsqueeze(0) for s, g in zip(sources, direct, strict=True)}
        if (last := max(suite)) in pulled:
            # Nothing lies between: what reaches the metric directly is the whole effect.
            pulled[last] = gradients[last].unsqueeze(0)
        _contract(weights, pulled, suite, state, by_site, [Node(LOGIT, LOGIT)])
    return weights


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


def _chunks(nodes: Sequence[Node], state: BatchState) -> list[Sequence[Node]]:
    size = max(1, TENSOR_ROWS_AT_ONCE // state.clean.tokens.numel())
    return [nodes[i : i + size] for i in range(0, len(nodes), size)]


def _pull_back(
    pieces: CutModel,
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    site: Site,
    nodes: Sequence[Node],
    sources: Sequence[Site],
) -> dict[Site, Float[Tensor, "nodes batch pos d_model"]]:
    """For each downstream node, the gradient of `grad_d m * d` to the leaves at `sources`."""
    if not sources:
        return {}
    dictionary = suite[site]
    at_source, at_target = _cotangents(suite, state, gradients, site, nodes)
    outputs, cotangents = [pieces.arrivals[dictionary.source]], [at_source]
    if dictionary.source == site:
        cotangents = [at_source + at_target]
    else:
        outputs.append(pieces.arrivals[site])
        cotangents.append(at_target)
    pulled = torch.autograd.grad(
        outputs,
        [pieces.leaves[s] for s in sources],
        cotangents,
        is_grads_batched=True,
        retain_graph=True,
        allow_unused=True,
    )
    return {s: g for s, g in zip(sources, pulled, strict=True) if g is not None}


def _cotangents(
    suite: Suite,
    state: BatchState,
    gradients: Mapping[Site, Activation],
    site: Site,
    nodes: Sequence[Node],
) -> tuple[Float[Tensor, "nodes batch pos d_source"], Float[Tensor, "nodes batch pos d_target"]]:
    """Gradient of `grad_d m * d` to the dictionary's source and to its target, for each node.

    A feature reads the source through its encoder row. The error is the target less what the
    features write, so it reads the target as it is and the source through all features.
    """
    dictionary, g = suite[site], gradients[site]
    along = einsum(g, dictionary.W_dec, "batch pos d, features d -> batch pos features")
    slopes = along * state.sites[site].slope
    at_source = g.new_zeros(len(nodes), *g.shape[:2], dictionary.W_enc.shape[1])
    at_target = g.new_zeros(len(nodes), *g.shape)
    for row, node in enumerate(nodes):
        where = slice(None) if node.position is None else slice(node.position, node.position + 1)
        if node.feature == "error":
            at_target[row, :, where] = g[:, where]
            at_source[row, :, where] = -slopes[:, where] @ dictionary.W_enc
        else:
            slope = slopes[:, where, int(node.feature), None]
            at_source[row, :, where] = slope * dictionary.W_enc[int(node.feature)]
    return at_source, at_target


def _contract(
    weights: EdgeWeights,
    pulled: Mapping[Site, Float[Tensor, "nodes batch pos d_model"]],
    suite: Suite,
    state: BatchState,
    by_site: Mapping[Site, Sequence[Node]],
    targets: Sequence[Node],
) -> None:
    """Multiply the pulled-back gradients with each upstream node's move, and add to `weights`."""
    for site, gradient in pulled.items():
        for source in by_site[site]:
            move = node_change(suite, state, site, source)
            if source.position is None:
                sums = einsum(gradient, move, "nodes batch pos d, batch pos d -> nodes")
            else:
                at = source.position
                sums = einsum(gradient[:, :, at], move[:, at], "nodes batch d, batch d -> nodes")
            for target, value in zip(targets, sums.double().tolist(), strict=True):
                weights[source, target] = weights.get((source, target), 0.0) + value


def node_change(suite: Suite, state: BatchState, site: Site, node: Node) -> Activation:
    """How the site's tensor changes when the node moves to its reference, at every position."""
    if site == EMBED:
        return state.embed_change
    if node.feature == "error":
        return state.sites[site].error_change
    change = state.sites[site].f_change[..., int(node.feature), None]
    return change * suite[site].W_dec[int(node.feature)]

"""How the model's tensors change when nodes are set to their reference values.

feature  (f'_i - f_i) W_dec_i, at every site that its dictionary writes
error    e' - e
token    the patch's embedding less the clean one's
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.state import BatchState
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.suite import Suite

Deltas = dict[Site, Float[Tensor, "nodes batch pos d_site"]]


def node_deltas(suite: Suite, state: BatchState, nodes: Sequence[Node]) -> Deltas:
    """What moving each of `nodes` alone, all at one site, adds to the sites that it writes."""
    kind = nodes[0].kind
    if kind == "token":
        found = {EMBED: state.embed_change}
    elif kind == "error":
        site = Site.parse(nodes[0].site)
        found = {site: state.errors[site].change}
    else:
        return _feature_deltas(suite, state, nodes)
    here = at_positions(nodes, state)
    return {site: here.unsqueeze(-1) * change for site, change in found.items()}


def _feature_deltas(suite: Suite, state: BatchState, nodes: Sequence[Node]) -> Deltas:
    dictionary = suite[nodes[0].site]
    feature = features_of(nodes, state)
    change = state.features[nodes[0].site].change.of_each(indices(nodes))
    change = change * at_positions(nodes, state)
    written = change.unsqueeze(-1) * dictionary.W_dec[feature][:, None, None]
    return dictionary.by_site(written)


def indices(nodes: Sequence[Node]) -> list[int]:
    """The indices of features."""
    return [int(node.feature) for node in nodes]


def features_of(nodes: Sequence[Node], state: BatchState) -> Int[Tensor, " nodes"]:
    """The indices of features, on the device."""
    return torch.tensor(indices(nodes), device=state.rows.device)


def at_positions(nodes: Sequence[Node], state: BatchState) -> Float[Tensor, "nodes 1 pos"]:
    """One at each node's position, at every position for a node that has none."""
    columns = torch.arange(state.n_positions, device=state.rows.device)
    own = torch.tensor([-1 if n.position is None else n.position for n in nodes])
    own = own.to(columns.device)[:, None, None]
    return ((own < 0) | (columns == own)).to(state.embed_change)


def node_gains(
    suite: Suite, state: BatchState, gradients: Mapping[Site, Tensor], nodes: Sequence[Node]
) -> Float[Tensor, "nodes batch"]:
    """To first order, what moving each node, all at one site, does on each prompt."""
    found = torch.zeros(len(nodes), len(state.rows), dtype=torch.float64)
    found = found.to(state.rows.device)
    kind, here = nodes[0].kind, at_positions(nodes, state)
    if kind == "feature":
        dictionary, feature = suite[nodes[0].site], features_of(nodes, state)
        change = state.features[nodes[0].site].change.of_each(indices(nodes)) * here
        g = torch.cat([gradients[site] for site in dictionary.writes], -1)
        along = torch.einsum("bpd,nd->nbp", g, dictionary.W_dec[feature])
        return found + (change * along).sum(-1)
    site = EMBED if kind == "token" else Site.parse(nodes[0].site)
    change = state.embed_change if kind == "token" else state.errors[site].change
    return found + (here * (change * gradients[site]).sum(-1)).sum(-1)


def by_name(nodes: Sequence[Node]) -> Iterator[tuple[list[int], list[Node]]]:
    """Nodes of one dictionary, or of one site's error, together; and where each stands."""
    groups: dict[tuple[str, bool], list[int]] = defaultdict(list)
    for i, node in enumerate(nodes):
        groups[node.site, node.kind == "error"].append(i)
    for members in groups.values():
        yield members, [nodes[i] for i in members]

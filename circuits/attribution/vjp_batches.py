"""Downstream nodes as indices, and which of them share a vector-Jacobian product.

No gradient goes from one prompt to another, so one product takes a different node on each prompt.
A *pair* is a node and a prompt on which it responds; a product takes one pair of each prompt.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.attribution.deltas import features_of, indices
from circuits.attribution.state import BatchState
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.suite import Suite

TENSOR_ROWS_AT_ONCE = 16_384
"Rows (product, prompt, position) in one batched vector-Jacobian product."


@dataclass(frozen=True)
class EdgeTargets:
    """Downstream nodes of one dictionary, or errors of one site, as indices."""

    name: str
    nodes: Sequence[Node]
    features: Int[Tensor, " targets"] | None
    "None for errors"
    slope: Float[Tensor, "targets batch width"] | None
    "slope of each feature from what it reads to what it is, by position; None for errors"
    at: Int[Tensor, "targets width"]
    "positions in the prompt: one with positions kept, else all that are run"
    responds: Bool[Tensor, "targets batch"]
    "on which prompts a node changes at all with what it reads, at the positions that are run"


@dataclass(frozen=True)
class VJPBatch:
    """Pairs of a target and a prompt on which it responds, and the product that takes each."""

    node: Int[Tensor, " pairs"]
    prompt: Int[Tensor, " pairs"]
    vjp: Int[Tensor, " pairs"]
    n_vjps: int
    "products that are computed at once, for all targets pulled back together"


def together(
    suite: Suite, state: BatchState, nodes: Sequence[Node], first: int
) -> list[list[EdgeTargets]]:
    """Nodes that are pulled back together: those behind the same modules of their layer.

    Any nodes could be: a product takes one node a prompt. But one pass for several sites crosses
    the layers below them once, as long as none of its nodes is carried through a module for
    another's sake. An error reads its target too, so that of a transcoder is behind the MLP, a
    feature not.
    """
    alike: dict[tuple[str, bool, bool], list[Node]] = defaultdict(list)
    for node in nodes:
        if node.kind != "token":
            alike[node.site, node.kind == "error", node.position is None].append(node)
    groups: dict[tuple[int, tuple[Site, ...]], list[EdgeTargets]] = defaultdict(list)
    for (name, is_error, _), some in sorted(
        alike.items(), key=lambda item: order_of(suite, item[1][0])
    ):
        read = Site.parse(name) if is_error else max(suite.reads_of(name))
        modules = [Site(kind, read.layer) for kind in ("attn_out", "mlp_out")]
        written = suite.writes
        behind = tuple(m for m in modules if m == read or (m < read and m not in written))
        groups[read.layer, behind].append(_targets(state, name, some, first))
    return list(groups.values())


def order_of(suite: Suite, node: Node) -> Site:
    """Where a node comes in the graph: the first site that it writes."""
    return min(suite.writes_of(node.site)) if node.kind == "feature" else Site.parse(node.site)


def _targets(state: BatchState, name: str, nodes: Sequence[Node], first: int) -> EdgeTargets:
    device = state.rows.device
    everywhere = list(range(first, state.n_positions))
    at = torch.tensor([everywhere if n.position is None else [n.position] for n in nodes])
    at = at.to(device)
    is_run = (at >= first).all(-1, keepdim=True).expand(-1, len(state.rows))
    if nodes[0].kind == "error":
        return EdgeTargets(name, nodes, None, None, at, is_run)
    features = features_of(nodes, state)
    own = state.features[name]
    slope = own.slope.of_each(indices(nodes))
    if own.response is not None:
        slope = slope * (1 + own.response.of_each(indices(nodes)))
    slope = slope.gather(2, at.unsqueeze(1).expand(-1, slope.shape[1], -1))
    return EdgeTargets(name, nodes, features, slope, at, slope.any(-1) & is_run)


def vjp_batches(
    state: BatchState, group: Sequence[EdgeTargets], first: int
) -> Iterator[list[VJPBatch]]:
    """Every pair of the group, the n-th of a prompt in product n, some products at a time.

    Those of each of the group's members apart.
    """
    # Laid out on the host: each look at a number on the device makes it wait.
    responds = torch.cat([targets.responds for targets in group]).cpu()
    vjps = responds.long().cumsum(0) - 1
    size = max(1, TENSOR_ROWS_AT_ONCE // state.clean.tokens[:, first:].numel())
    for start in range(0, int(vjps.max()) + 1, size):
        here = responds & (vjps >= start) & (vjps < start + size)
        n_vjps, before, found = int((vjps * here).max()) - start + 1, 0, []
        for targets in group:
            end = before + len(targets.nodes)
            node, prompt = here[before:end].nonzero(as_tuple=True)
            vjp = vjps[before:end][node, prompt] - start
            on_device = torch.stack([node, prompt, vjp]).to(state.rows.device)
            found.append(VJPBatch(*on_device, n_vjps=n_vjps))
            before = end
        yield found

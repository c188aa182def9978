"""Downstream nodes as indices, and which of them share a vector-Jacobian product.

Prompts do not meet in a backward pass, so one pass serves another node on each prompt. A *place*
is a node on a prompt that it answers on, a *slot* a pass that takes one place of each prompt.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.attribution.state import EMBED, BatchState
from circuits.graph import Node
from hooked_qwen.sites import Site
from saes.suite import Suite

TENSOR_ROWS_AT_ONCE = 16_384
"Rows (slot, prompt, position) in one batched vector-Jacobian product."


@dataclass(frozen=True)
class Targets:
    """Downstream nodes of one site, all features or all errors, as indices."""

    site: Site
    nodes: Sequence[Node]
    features: Int[Tensor, " targets"] | None
    "None for errors"
    at: Int[Tensor, "targets width"]
    "positions in the prompt: one with positions kept, else all that are run"
    answers: Bool[Tensor, "targets batch"]
    "on which prompts a node changes at all with what it reads, at the positions that are run"


@dataclass(frozen=True)
class Places:
    """A node, the prompt that it answers on, and the slot in which it is pulled back there."""

    node: Int[Tensor, " places"]
    prompt: Int[Tensor, " places"]
    slot: Int[Tensor, " places"]

    def where(self, these: Bool[Tensor, " places"], *, node: int = 0, slot: int = 0) -> "Places":
        """Some of the places, their nodes counted from `node` on and their slots from `slot` on."""
        return Places(self.node[these] - node, self.prompt[these], self.slot[these] - slot)


def together(
    suite: Suite, state: BatchState, by_site: Mapping[Site, Sequence[Node]], first: int
) -> list[list[Targets]]:
    """Nodes that are pulled back together: those behind the same modules of their layer.

    Any nodes could be: a slot holds one node a prompt. But one pass for several sites crosses the
    layers below them once, as long as none of its nodes is carried through a module for another's
    sake. An error reads its target too, so that of a transcoder is behind the MLP, a feature not.
    """
    alike: dict[tuple[Site, bool, bool], list[Node]] = defaultdict(list)
    for site in sorted(set(by_site) - {EMBED}):
        for node in by_site[site]:
            alike[site, node.feature == "error", node.position is None].append(node)
    groups: dict[tuple[int, tuple[Site, ...]], list[Targets]] = defaultdict(list)
    for (site, is_error, _), nodes in alike.items():
        read = site if is_error else suite[site].source
        modules = [Site(kind, read.layer) for kind in ("attn_out", "mlp_out")]
        behind = tuple(m for m in modules if m == read or (m < read and m not in suite))
        groups[read.layer, behind].append(_targets(state, site, nodes, first))
    return list(groups.values())


def _targets(state: BatchState, site: Site, nodes: Sequence[Node], first: int) -> Targets:
    slope = state.sites[site].slope
    everywhere = list(range(first, slope.shape[1]))
    at = torch.tensor([everywhere if n.position is None else [n.position] for n in nodes])
    at = at.to(slope.device)
    is_run = (at >= first).all(-1, keepdim=True).expand(-1, len(slope))
    if nodes[0].feature == "error":
        return Targets(site, nodes, None, at, is_run)
    features = torch.tensor([int(n.feature) for n in nodes]).to(slope.device)
    answers = slope[:, at, features.unsqueeze(-1)].any(-1).T
    return Targets(site, nodes, features, at, answers & is_run)


def places(state: BatchState, group: Sequence[Targets], first: int) -> Iterator[Places]:
    """Every place of the group, the n-th of a prompt's in slot n, some slots at a time.

    Nodes are counted through the whole group.
    """
    answers = torch.cat([targets.answers for targets in group])
    slots = answers.long().cumsum(0) - 1
    node, prompt = answers.nonzero(as_tuple=True)
    found = Places(node, prompt, slots[node, prompt])
    size = max(1, TENSOR_ROWS_AT_ONCE // state.clean.tokens[:, first:].numel())
    for start in range(0, int(slots.max()) + 1, size):
        some = (found.slot >= start) & (found.slot < start + size)
        yield found.where(some, slot=start)

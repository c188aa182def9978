"""Dense views of what a state holds sparsely, and its nodes one by one, to compare with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.effects import node_effects, node_names
from circuits.attribution.node_effects import NodeEffects
from circuits.attribution.state import BatchState
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.suite import Suite


@dataclass(frozen=True)
class DenseState:
    """The features of one dictionary as `[batch, pos, features]`, zeros and all."""

    f: Tensor
    change: Tensor
    slope: Tensor

    @property
    def reference(self) -> Tensor:
        """Where they are moved to; where they stay, what they are."""
        return self.f + self.change


def dense(state: BatchState, name: Site | str) -> DenseState:
    found = state.features[str(name)]
    return DenseState(found.f.dense(), found.change.dense(), found.slope.dense())


def nodes_that_move(analysis: Analysis, state: BatchState) -> list[Node]:
    """Features and errors that move on some prompt."""
    nothing = {site: torch.zeros_like(value) for site, value in state.values.items()}
    return node_effects(analysis, state, nothing).inner().nodes()


def ranking_of(suite: Suite, nodes: Sequence[Node]) -> NodeEffects:
    """The ranking in which each of `nodes` has the effect 1."""
    return NodeEffects.listed(node_names(suite), [(node, 1.0) for node in nodes])


def responding_as_clean(state: BatchState) -> BatchState:
    """The state with features that respond to a move as they do at the clean run: 1 if on."""
    found = {name: replace(s, slope=s.f.on()) for name, s in state.features.items()}
    return replace(state, features=found)


def nearer(state: BatchState, share: float) -> BatchState:
    """The state with every node moved only a share of its way."""
    return replace(
        state,
        features={
            name: replace(s, reference=s.f.plus(s.change.times(torch.tensor(share))))
            for name, s in state.features.items()
        },
        errors={
            site: replace(s, reference=s.error + share * s.change)
            for site, s in state.errors.items()
        },
        embed_change=share * state.embed_change,
    )

"""The second pass over the prompts of a replacement graph: edges among the nodes it may keep.

Axes: `known` nodes that may be kept, in the order of their keys; the outputs come after them.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.discovery.influence import Influence
from circuits.discovery.replaced_prompts import ReplacedPrompt
from transcoders.replacement import TargetInputs
from transcoders.sources import FEATURE


@dataclass(frozen=True)
class Edges:
    """Mean edges over prompts, by the ranks of their ends; each pair of ends once."""

    source: Int[Tensor, " edges"]
    target: Int[Tensor, " edges"]
    weight: Float[Tensor, " edges"]
    spread: Float[Tensor, " edges"]
    "standard deviation over prompts; 0 of a single one"
    flow: Float[Tensor, " edges"]
    "influence that runs through the edge"


def members(
    known: Int[Tensor, " known"], key: Int[Tensor, " sources"]
) -> tuple[Int[Tensor, " members"], Int[Tensor, " members"]]:
    """The sources that are known nodes, and the rank of each among these."""
    place = torch.searchsorted(known, key).clamp(max=len(known) - 1)
    member = (known[place] == key).nonzero().squeeze(-1)
    return member, place[member]


class LinearEdges:
    """Edges and targets while prompts are added, in float64."""

    def __init__(self, known: Int[Tensor, " known"], outputs: int, *, summed: bool) -> None:
        self.known = known
        self._summed, self._n, self._size = summed, 0, len(known) + outputs
        self.activation, self.pre_activation, self.bias = torch.zeros(
            3, self._size, dtype=torch.float64, device=known.device
        )
        self._pair = torch.zeros(0, dtype=torch.long, device=known.device)
        "source * size + target"
        self._sums = torch.zeros(3, 0, dtype=torch.float64, device=known.device)
        "of weights, their squares, flows"

    def add(self, opened: ReplacedPrompt, influence: Influence, *, at_once: int) -> None:
        """Add a prompt."""
        model, sources = opened.model, opened.model.sources
        member, rank = members(self.known, opened.key)
        place = torch.zeros_like(opened.key).index_copy_(0, member, rank)
        self._add_activations(rank, sources.activation[member].double())
        found = [self._of_outputs(opened, member, rank)]
        for group in model.grouped(member[sources.kind[member] == FEATURE], at_once):
            inputs, target = model.inputs(model.features(group)), place[group]
            self.bias.index_add_(0, target, inputs.bias.double())
            self.pre_activation.index_add_(0, target, model.pre_activation[group].double())
            found.append(self._pairs(inputs, influence.of[group], member, rank, target))
        pair, weight, flow = (torch.cat(parts) for parts in zip(*found, strict=True))
        # A feature may stand at several positions: they are one node before they are squared.
        pair, place = pair.unique(return_inverse=True)
        weight, flow = (
            torch.zeros_like(pair, dtype=torch.float64).index_add_(0, place, x)
            for x in (weight, flow)
        )
        self._merge(pair, torch.stack([weight, weight.square(), flow]))
        self._n += 1

    def _of_outputs(
        self, opened: ReplacedPrompt, member: Tensor, rank: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        inputs, outputs = opened.outputs.inputs(opened.model), opened.outputs
        target = torch.arange(len(self.known), self._size, device=member.device)
        self.bias[target] += inputs.bias.double()
        self.pre_activation[target] += outputs.values(opened.model).double()
        return self._pairs(inputs, outputs.shares.double(), member, rank, target)

    def _add_activations(self, rank: Tensor, value: Tensor) -> None:
        if not self._summed:
            self.activation.index_add_(0, rank, value)
            return
        # Of a node at several positions the largest counts, as everywhere.
        highest = torch.zeros_like(self.activation)
        self.activation += highest.scatter_reduce(0, rank, value, "amax")

    def _pairs(
        self, inputs: TargetInputs, own: Tensor, member: Tensor, rank: Tensor, target: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Edges from members to targets of `own` influence, as pairs of ranks."""
        total = inputs.weight.abs().double().sum(0)
        below = member < len(inputs.weight)
        weight = inputs.weight[member[below]].double()
        flow = weight.abs() * torch.where(total > 0, own / total, 0.0)
        pair = rank[below, None] * self._size + target
        on = weight != 0
        return pair[on], weight[on], flow[on]

    def _merge(self, pair: Int[Tensor, " pairs"], sums: Float[Tensor, "3 pairs"]) -> None:
        pair = torch.cat([self._pair, pair])
        self._pair, place = pair.unique(return_inverse=True)
        both = torch.cat([self._sums, sums], 1)
        self._sums = both.new_zeros(3, len(self._pair)).index_add_(1, place, both)

    def mean(self) -> Edges:
        """Means over the prompts that were added."""
        weight, square, flow = self._sums / self._n
        variance = (square - weight.square()).clamp(min=0) * self._n / max(1, self._n - 1)
        source, target = self._pair // self._size, self._pair % self._size
        return Edges(source, target, weight, variance.sqrt(), flow)

    def of_nodes(self) -> list[list[float]]:
        """Mean activation, pre-activation and bias of every node, then of the outputs."""
        found = torch.stack([self.activation, self.pre_activation, self.bias], -1)
        return (found / self._n).tolist()

"""Operations on the features of one dictionary, grouped so that many are done at once.

Features of a dictionary do not see each other, so that operations on different ones may change
places: those that do the same to different features, or to one at different positions, are one
step. Operations on one feature stay in their order.

Axes: `chosen` features that a step looks at: those that are named, the slots of a token, or all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.nodes import EVERY, Node
from saes.edit_file import Edit, Operation
from saes.features import Features
from saes.operations import kind_of

LOOKED_THROUGH = 512
"Slots that are looked through one by one, which takes less time than a few products."
NOWHERE = -2
"No token has this position; padding has -1."


class NodeTable:
    """Which features, at which positions or at all of them: looked up by feature."""

    def __init__(self, nodes: Iterable[Node], width: int, device: torch.device) -> None:
        positions: dict[int, list[int | None]] = {}
        for node in nodes:
            positions.setdefault(int(node.feature), []).append(node.position)
        own = [[p for p in each if p is not None] for each in positions.values()]
        longest = max(map(len, own), default=0)
        rows = [[], *own]
        padded = [row + [NOWHERE] * (longest - len(row)) for row in rows]
        self.row = torch.zeros(width, dtype=torch.long, device=device)
        self.row[list(positions)] = torch.arange(1, len(rows), device=device)
        self.everywhere = torch.tensor(
            [False, *(None in each for each in positions.values())], device=device
        )
        self.positions = torch.tensor(padded, device=device) if longest else None

    def holds(
        self, index: Int[Tensor, "*#any chosen"], tokens: Int[Tensor, "rows pos"]
    ) -> Bool[Tensor, "*any chosen"]:
        """Whether each feature is in it, at the positions of `tokens` where it has its own."""
        row = self.row[index]
        found = self.everywhere[row]
        if self.positions is None:
            return found
        return found | (self.positions[row] == tokens[..., None, None]).any(-1)


@dataclass(frozen=True, eq=False)
class Step:
    """One thing done to some features of a dictionary, or to all but some."""

    operation: Operation
    "what is done, at which tokens, and when"
    nodes: tuple[Node, ...]
    "to which"
    table: NodeTable
    "these, or of every feature those that are left out"
    rows: Int[Tensor, " named"]
    "the features that its plan names"

    @property
    def every(self) -> bool:
        return self.operation.node.feature == EVERY

    def at(
        self, index: Int[Tensor, "*#any chosen"], tokens: Int[Tensor, "rows pos"]
    ) -> Bool[Tensor, "*any chosen"]:
        """Which of the features `index` of a token it is done to."""
        if self.table.positions is None:
            return self._at_rows if index is self.rows else self._at_each[index]
        found = self.table.holds(index, tokens)
        return ~found if self.every else found

    @cached_property
    def _at_each(self) -> Bool[Tensor, " features"]:
        """Of each feature that there is, where positions do not matter."""
        found = self.table.everywhere[self.table.row]
        return ~found if self.every else found

    @cached_property
    def _at_rows(self) -> Bool[Tensor, " named"]:
        return self._at_each[self.rows]


@dataclass(frozen=True, eq=False)
class Plan:
    """What is done to the features of one dictionary, in order."""

    name: str
    steps: tuple[Step, ...]
    named: tuple[int, ...]
    "the features that are named one by one"
    rows: Int[Tensor, " named"]
    "the same, where the dictionary is"
    column: Int[Tensor, " features"]
    "of each feature that there is its place among these, from 1; 0 for one that is not named"
    means: Mapping[Step, Float[Tensor, " known"]]
    "of each step that needs them, by feature where it is of every one, else by column"

    def of_named(self, f: Features) -> Float[Tensor, "*batch named"]:
        """The values of the named features: `f.of(rows)`, looked up."""
        if f.whole:
            return f.of(self.rows)
        found = f.value.new_zeros(*f.value.shape[:-1], 1 + len(self.named))
        # In place, so that nothing is copied; gradients reach `f.value` all the same.
        return found.scatter_add_(-1, self.column[f.index], f.value)[..., 1:]

    def leaves(self, f: Features) -> bool:
        """Whether nothing is done to features as they are, where that is known at once.

        Operations that leave a feature off where it is off have nothing to do where none of those
        that they name has a slot. In generation a token has few slots, and most often none of them;
        on an accelerator the answer would have to be waited for.
        """
        if self.of_every or not self.on_slots or f.whole:
            return False
        if f.index.device.type != "cpu" or f.index.numel() > LOOKED_THROUGH:
            return False
        return self._named.isdisjoint(f.index.flatten().tolist())

    @cached_property
    def _named(self) -> frozenset[int]:
        return frozenset(self.named)

    def of_columns(
        self, nodes: Sequence[Node], values: Sequence[Float[Tensor, "*#batch"]]
    ) -> Float[Tensor, "*batch columns"]:
        """A value for each of some nodes that are named, in the columns of their features."""
        known = torch.broadcast_tensors(*values)
        found = known[0].new_zeros(*known[0].shape, 1 + len(self.named))
        places = [1 + self.named.index(int(node.feature)) for node in nodes]
        found[..., places] = torch.stack(known, -1)
        return found

    @cached_property
    def of_every(self) -> bool:
        return any(step.every for step in self.steps)

    @cached_property
    def on_slots(self) -> bool:
        """Whether features that are off stay off, and the slots of one feature may be told apart.

        Then nothing as wide as the dictionary is needed, whatever the operations are of.
        """
        return all(kind_of(step.operation.do).linear for step in self.steps)


def plan_of(name: str, edit: Edit, width: int, device: torch.device) -> Plan | None:
    """The plan of those operations that are of features of a dictionary; None of none."""
    of_name = [op for op in edit.operations if op.node.kind == "feature" and op.node.site == name]
    if not of_name:
        return None
    features = [op.node.feature for op in of_name if op.node.feature != EVERY]
    named = tuple(dict.fromkeys(map(int, features)))
    rows = torch.tensor(named, dtype=torch.long, device=device)
    column = torch.zeros(width, dtype=torch.long, device=device)
    column[rows] = torch.arange(1, 1 + len(named), device=device)
    groups = _grouped(of_name)
    steps = [
        Step(
            group[0],
            tuple(op.node for op in group),
            NodeTable(
                group[0].besides if group[0].node.feature == EVERY else [op.node for op in group],
                width,
                device,
            ),
            rows,
        )
        for group in groups
    ]
    means: dict[Step, Tensor] = {}
    plan = Plan(name, tuple(steps), named, rows, column, means)
    for step in steps:
        if step.operation.needs == "mean":
            known = [torch.as_tensor(edit.mean_of(node)) for node in step.nodes]
            found = known[0] if step.every else plan.of_columns(step.nodes, known)
            means[step] = found.to(device)
    return plan


def _grouped(operations: Sequence[Operation]) -> list[list[Operation]]:
    """Operations that can be done together, in an order that gives what one by one would."""
    groups: list[list[Operation]] = []
    last: dict[int | str, int] = {}
    floor = 0
    "no operation goes before what was done to every feature"
    for op in operations:
        if op.node.feature == EVERY:
            groups.append([op])
            floor = len(groups)
            continue
        first = last.get(op.node.feature, floor)
        place = next(
            (i for i in range(first, len(groups)) if _go_together(groups[i], op)), len(groups)
        )
        if place == len(groups):
            groups.append([])
        groups[place].append(op)
        last[op.node.feature] = max(place, last.get(op.node.feature, floor))
    return groups


def _go_together(group: Sequence[Operation], op: Operation) -> bool:
    """Whether an operation can be done with a group: it does the same elsewhere."""
    one = group[0]
    if one.node.feature == EVERY:
        return False
    if _how(one) != _how(op):
        return False
    same = [other.node.position for other in group if other.node.feature == op.node.feature]
    if not same:
        return True
    apart = op.node.position is not None and None not in same and op.node.position not in same
    # What a mean or a patch is differs from position to position.
    return apart and kind_of(op.do).needs is None


def _how(op: Operation) -> tuple[Any, ...]:
    """What is done, at which tokens, and when."""
    return op.do, op.value, op.positions, op.when, op.norm_below

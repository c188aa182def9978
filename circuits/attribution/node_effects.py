"""Effects of many nodes as arrays: a discovery weighs every changed node, millions of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor

from hooked_qwen.files import write_atomically
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from hooked_qwen.tensor_files import read_tensors_and_metadata
from saes.nodes import FEATURE_BITS, NodeSet

ERROR, TOKEN = -1, -2
"What stands for the feature of an error, and of a token."
NAMED: dict[int, int | str] = {ERROR: "error", TOKEN: "token"}
POSITION_BITS = 20
NAMES = "names"


@dataclass(frozen=True, eq=False)
class NodeEffects:
    """Nodes and their effects, on the CPU; as a sequence, pairs of a node and a number."""

    names: tuple[str, ...]
    "the sites and dictionaries that there are"
    key: Int[Tensor, " nodes"]
    "of each node: place in `names`, position + 1 (0: every one), feature - `TOKEN`"
    effect: Float[Tensor, " nodes"]

    @classmethod
    def summed(
        cls,
        names: Sequence[str],
        key: Int[Tensor, " pairs"],
        effect: Float[Tensor, " pairs"],
    ) -> "NodeEffects":
        """Every node once, with the sum of its effects, in the order of their keys."""
        known, place = key.unique(return_inverse=True)
        total = torch.zeros_like(known, dtype=torch.float64).index_add_(0, place, effect)
        return cls(tuple(names), known.cpu(), total.cpu())

    @classmethod
    def listed(cls, names: Sequence[str], pairs: Sequence[tuple[Node, float]]) -> "NodeEffects":
        """Of nodes one by one."""
        keys = [_key(names, node) for node, _ in pairs]
        effect = torch.tensor([effect for _, effect in pairs], dtype=torch.float64)
        return cls(tuple(names), torch.tensor(keys, dtype=torch.long), effect)

    @classmethod
    def sum(cls, parts: Sequence["NodeEffects"]) -> "NodeEffects":
        """The sum of several, in the order of their keys."""
        both = cls.one_after_another(parts)
        return cls.summed(both.names, both.key, both.effect)

    @classmethod
    def one_after_another(cls, parts: Sequence["NodeEffects"]) -> "NodeEffects":
        """All parts in their order; they have the same names."""
        key = torch.cat([part.key for part in parts])
        return cls(parts[0].names, key, torch.cat([part.effect for part in parts]))

    def ranked(self, n_prompts: int) -> "NodeEffects":
        """Mean effects, strongest first; equal ones in the order of their keys."""
        effect = self.effect / n_prompts
        order = effect.abs().sort(descending=True, stable=True).indices
        return NodeEffects(self.names, self.key[order], effect[order])

    def with_effects(self, effect: Float[Tensor, " nodes"]) -> "NodeEffects":
        """The same nodes with other effects."""
        return NodeEffects(self.names, self.key, effect.double().cpu())

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, NodeEffects)
            and self.names == other.names
            and torch.equal(self.key, other.key)
            and torch.equal(self.effect, other.effect)
        )

    def __len__(self) -> int:
        return len(self.key)

    @overload
    def __getitem__(self, at: int) -> tuple[Node, float]: ...
    @overload
    def __getitem__(self, at: slice | Tensor | Sequence[int]) -> "NodeEffects": ...
    def __getitem__(self, at):
        if isinstance(at, int):
            return self[[at]].nodes()[0], float(self.effect[at])
        at = at if isinstance(at, slice | Tensor) else torch.tensor(at, dtype=torch.long)
        return NodeEffects(self.names, self.key[at], self.effect[at])

    def __iter__(self) -> Iterator[tuple[Node, float]]:
        return iter(zip(self.nodes(), self.effect.tolist(), strict=True))

    def nodes(self) -> list[Node]:
        """Every node as a key of a graph."""
        return [
            Node(
                self.names[name],
                NAMED[feature] if feature < 0 else feature,
                None if position < 0 else position,
            )
            for name, feature, position in zip(
                self.name.tolist(), self.feature.tolist(), self.position.tolist(), strict=True
            )
        ]

    @property
    def name(self) -> Int[Tensor, " nodes"]:
        """The place of each node's site or dictionary in `names`."""
        return self.key >> (FEATURE_BITS + POSITION_BITS)

    @property
    def position(self) -> Int[Tensor, " nodes"]:
        """-1 where positions are summed."""
        return ((self.key >> FEATURE_BITS) & ((1 << POSITION_BITS) - 1)) - 1

    @property
    def feature(self) -> Int[Tensor, " nodes"]:
        """A feature's index, `ERROR` or `TOKEN`."""
        return (self.key & ((1 << FEATURE_BITS) - 1)) + TOKEN

    @property
    def group(self) -> Int[Tensor, " nodes"]:
        """A number for each site and kind, features or errors."""
        return 2 * self.name + (self.feature == ERROR)

    def where(self, these: Bool[Tensor, " nodes"]) -> "NodeEffects":
        return NodeEffects(self.names, self.key[these], self.effect[these])

    def inner(self) -> "NodeEffects":
        """Features and errors, no tokens."""
        return self.where(self.feature != TOKEN)

    def features(self) -> "NodeEffects":
        return self.where(self.feature >= 0)

    def at_sites(self, starting: str) -> Bool[Tensor, " nodes"]:
        """Which nodes are at a site whose name starts so."""
        known = torch.tensor([name.startswith(starting) for name in self.names])
        return known[self.name]

    def place_of(self, node: Node) -> int:
        """Where a node stands."""
        return int((self.key == _key(self.names, node)).nonzero()[0])

    def as_set(self) -> NodeSet:
        """The features and errors as a set."""
        features, errors = {}, {}
        for i, name in enumerate(self.names):
            here = self.where(self.name == i)
            inner = here.where(here.feature >= 0)
            if len(inner):
                keys = (inner.position + 1 << FEATURE_BITS) + inner.feature
                features[name] = keys.unique()
            at = here.position[here.feature == ERROR] + 1
            if len(at):
                errors[Site.parse(name)] = at.unique()
        return NodeSet(features, errors)

    def save(self, path: Path) -> None:
        """Write them whole or not at all."""
        tensors = {"key": self.key.contiguous(), "effect": self.effect.contiguous()}
        about = {NAMES: "\n".join(self.names)}
        write_atomically(path, lambda partial: save_file(tensors, partial, metadata=about))

    @classmethod
    def load(cls, path: Path) -> "NodeEffects":
        """Read what `save` wrote; raises `OSError` where nothing is."""
        tensors, about = read_tensors_and_metadata(path)
        return cls(tuple(about[NAMES].split("\n")), tensors["key"], tensors["effect"])


class EffectSums:
    """Effects that are summed batch by batch: each node is held a few times at most."""

    def __init__(self) -> None:
        self._parts: list[NodeEffects] = []

    def add(self, part: NodeEffects) -> None:
        """Add the effects on some more prompts."""
        self._parts.append(part)
        first, *more = self._parts
        # Not with every batch: a merge sorts all that is there.
        if sum(map(len, more)) > len(first):
            self._parts = [NodeEffects.sum(self._parts)]

    def sum(self) -> NodeEffects:
        """All that was added, in the order of their keys."""
        return NodeEffects.sum(self._parts)


def keys(
    names: Sequence[str],
    name: str,
    position: Int[Tensor, "*#any"],
    feature: Int[Tensor, "*any"],
) -> Int[Tensor, "*any"]:
    """Keys of nodes of one site or dictionary; `position` is -1 where positions are summed."""
    high = names.index(name) << POSITION_BITS
    return ((high + position + 1) << FEATURE_BITS) + feature - TOKEN


def _key(names: Sequence[str], node: Node) -> int:
    feature = {"error": ERROR, "token": TOKEN}.get(str(node.feature), node.feature)
    position = -1 if node.position is None else node.position
    high = (names.index(node.site) << POSITION_BITS) + position + 1
    return (high << FEATURE_BITS) + int(feature) - TOKEN

"""Sets of nodes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site

FEATURE_BITS = 34
Keys = Int[Tensor, " _"]
"Numbers of features at positions, `(position + 1 << FEATURE_BITS) + feature`, rising; 0 for + 1 "
"is every position."


@dataclass(frozen=True)
class NodeSet:
    """A set of features and errors; of thousands of them it holds as many numbers."""

    features: Mapping[str, Keys]
    "by dictionary"
    errors: Mapping[Site, Keys]
    "by site, position + 1; 0 is every one"
    inverted: bool = False
    "all nodes but those"

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> "NodeSet":
        """The set of `nodes`, without tokens and logits."""
        features: dict[str, list[int]] = defaultdict(list)
        errors: dict[Site, list[int]] = defaultdict(list)
        for node in nodes:
            at = 0 if node.position is None else node.position + 1
            if node.kind == "error":
                errors[Site.parse(node.site)].append(at)
            elif node.kind == "feature":
                features[node.site].append((at << FEATURE_BITS) + int(node.feature))
        return cls(
            {name: torch.tensor(keys).unique() for name, keys in features.items()},
            {site: torch.tensor(at).unique() for site, at in errors.items()},
        )

    def to(self, device: torch.device) -> "NodeSet":
        """The same with its numbers on a device, moved all at once."""
        parts = [*self.features.values(), *self.errors.values()]
        if not parts or parts[0].device == device:
            return self
        moved = iter(torch.cat(parts).to(device).split([len(part) for part in parts]))
        return NodeSet(
            {name: next(moved) for name in self.features},
            {site: next(moved) for site in self.errors},
            self.inverted,
        )

    def complement(self) -> "NodeSet":
        """All but those."""
        return replace(self, inverted=not self.inverted)

    def has_features(self, name: str) -> bool:
        """Whether any feature of a dictionary may belong to it."""
        return self.inverted or name in self.features

    def has_error(self, site: Site) -> bool:
        """Whether the error of a site belongs to it at any position."""
        return site in self.errors or self.inverted

    def feature(
        self,
        name: str,
        index: Int[Tensor, "*batch slots"],
        position: Int[Tensor, "*#batch"],
    ) -> Bool[Tensor, "*batch slots"]:
        """Which of a dictionary's features in `index` belong to it, each token at a position."""
        keys = self.features.get(name)
        if keys is None:
            return torch.full_like(index, self.inverted, dtype=torch.bool)
        here = (position.unsqueeze(-1) + 1 << FEATURE_BITS) + index
        found = _among(keys, here) | _among(keys, index)
        return ~found if self.inverted else found

    def error(self, site: Site, position: Int[Tensor, "*batch"]) -> Bool[Tensor, "*batch"]:
        """Whether a site's error belongs to it, each token at a position."""
        at = self.errors.get(site)
        if at is None:
            return torch.full_like(position, self.inverted, dtype=torch.bool)
        found = torch.isin(position + 1, at) | (at == 0).any()
        return ~found if self.inverted else found


def _among(known: Keys, values: Int[Tensor, "*any"]) -> Bool[Tensor, "*any"]:
    """Which of `values` are among the sorted numbers `known`."""
    place = torch.searchsorted(known, values.contiguous()).clamp(max=len(known) - 1)
    return known[place] == values

"""Nodes: what a graph is made of and an edit acts on, one by one and as sets."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from hooked_qwen.sites import Site


class Node(NamedTuple):
    """Key of a node: where it is, which feature it is, and at which token position.

    `feature` is a dictionary's feature index, or `"error"`, or `"token"` (site `embed`), or the
    token's text (site `logit`). `position` is None when positions are summed, and for logits.
    Written `mlp_out.3/812@5`, `mlp_out.3/error@5`, `token@5`, `logit/ are`.
    """

    site: str
    feature: int | str
    position: int | None = None

    def __str__(self) -> str:
        name = "token" if self.site == "embed" else f"{self.site}/{self.feature}"
        return name if self.position is None else f"{name}@{self.position}"

    @property
    def kind(self) -> str:
        if self.site == "logit":
            return "logit"
        if self.site == "embed":
            return "token"
        return "error" if self.feature == "error" else "feature"

    @classmethod
    def parse(cls, text: str) -> "Node":
        """The key written as `text`; raises `ValueError` naming the accepted forms."""
        if text.startswith("logit/"):
            return cls("logit", text.removeprefix("logit/"))
        name, _, position = text.partition("@")
        site, _, feature = name.partition("/")
        try:
            at = _number(position) if "@" in text else None
            if site == "token" and not feature:
                return cls("embed", "token", at)
            if feature == "error":
                return cls(site, "error", at)
            return cls(site, _number(feature), at)
        except ValueError:
            raise ValueError(
                f"no node is called {text!r}: write SITE/FEATURE with an optional @POSITION, both "
                "counted from 0, such as 'mlp_out.3/812@5', 'mlp_out.3/error', 'token@5' or "
                "'logit/ are'"
            ) from None


def _number(text: str) -> int:
    """A number from 0 on, in plain digits: `int` takes '-1', '1_0' and '٣' too."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text!r} is no number")
    return int(text)


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

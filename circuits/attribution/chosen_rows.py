"""Encoder and decoder rows of the features of a graph, kept while its edges are weighed."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hooked_qwen.nodes import Node
from saes.dictionary import SparseDictionary
from saes.suite import Suite


@dataclass(frozen=True)
class ChosenRows:
    """The rows of some features of a dictionary, which need not be read again for them."""

    known: Int[Tensor, " chosen"]
    "the features, in order"
    W_enc: Float[Tensor, "chosen d_source"]
    W_dec: Float[Tensor, "chosen d_target"]

    @classmethod
    def of(cls, dictionary: SparseDictionary, features: Iterable[int]) -> "ChosenRows":
        """Those of `features`."""
        known = torch.tensor(sorted(set(features)), device=dictionary.W_dec.device)
        return cls(known, dictionary.W_enc[known], dictionary.W_dec[known])

    def at(self, features: Int[Tensor, "*any"]) -> Int[Tensor, "*any"]:
        """In which row each of some features stands."""
        return torch.searchsorted(self.known, features)


def rows_of(suite: Suite, nodes: Iterable[Node]) -> dict[str, ChosenRows]:
    """By dictionary, the rows of the features among `nodes`."""
    chosen: dict[str, list[int]] = defaultdict(list)
    for node in nodes:
        if node.kind == "feature":
            chosen[node.site].append(int(node.feature))
    return {name: ChosenRows.of(suite[name], features) for name, features in chosen.items()}

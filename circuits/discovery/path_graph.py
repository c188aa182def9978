"""The strongest paths to the outputs of a prompt set, and what lies on them.

Of each prompt the strongest are taken (`transcoders.paths`), and their weights are means over the
prompts. A node that is summed over positions is one node on them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.replaced_prompts import ReplacedPrompt, ReplacedPrompts
from circuits.graph import Node, rounded
from hooked_qwen.progress import Report, silent
from transcoders.paths import Path, find_paths

LISTED = 50
"Paths that a graph's record lists, the strongest."


@dataclass(frozen=True)
class OnPaths:
    """What lies on the strongest paths."""

    asked: int
    key: Int[Tensor, " nodes"]
    "of every node on some path, as in `NodeEffects`, rising"
    edges: dict[tuple[Node, Node], float]
    "the weight of the paths through each edge, mean over prompts"
    paths: dict[tuple[Node, ...], float]
    "the strongest first, mean over prompts; output last"
    constant: float
    "of paths that are the constant part of an output alone"
    total: float
    "the outputs themselves: what all paths add up to"

    @property
    def weight(self) -> float:
        """What they add up to."""
        return sum(self.paths.values()) + self.constant

    def record(self) -> dict[str, Any]:
        """As `meta` of `graph.json` has them."""
        listed = list(self.paths.items())[:LISTED]
        return {
            "asked": self.asked,
            "found": len(self.paths),
            "weight": rounded(self.weight),
            "total": rounded(self.total),
            "strongest": [
                {"nodes": [str(node) for node in nodes], "weight": rounded(weight)}
                for nodes, weight in listed
            ],
        }


def paths_to_keep(
    prompts: ReplacedPrompts, k: int, targets: int | None, report: Report = silent
) -> OnPaths:
    """The `k` strongest paths of each prompt; inputs of at most `targets` features are weighed."""
    keys, edges, paths = [], {}, {}
    total = constant = 0.0
    n = len(prompts)
    for opened in prompts:
        outputs = opened.outputs
        shares = outputs.shares[outputs.of].tolist()
        budget = len(opened.key) if targets is None else targets
        found = find_paths(opened.model, outputs.targets, k, shares=shares, traced=budget)
        total += found.total / n
        for path in found:
            if not path.sources:
                constant += path.weight / n
                continue
            nodes = _nodes(prompts.names, opened, path)
            paths[nodes] = paths.get(nodes, 0.0) + path.weight / n
            keys.append(opened.key[list(path.sources)])
            for pair in pairwise(nodes):
                edges[pair] = edges.get(pair, 0.0) + path.weight / n
        report("paths", opened.number + 1, n)
    by_size = dict(sorted(paths.items(), key=lambda pair: -abs(pair[1])))
    key = torch.cat(keys).unique().cpu() if keys else torch.zeros(0, dtype=torch.long)
    return OnPaths(k, key, edges, by_size, constant, total)


def _nodes(names: Sequence[str], opened: ReplacedPrompt, path: Path) -> tuple[Node, ...]:
    """The nodes of a path of a prompt, the output last."""
    key = opened.key[list(path.sources)].cpu()
    inner = NodeEffects(tuple(names), key, torch.zeros(len(key), dtype=torch.float64)).nodes()
    output = opened.outputs.outputs[int(opened.outputs.of[path.target])]
    return (*inner, output.node)

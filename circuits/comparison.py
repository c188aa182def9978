"""What changed between two graphs: nodes matched by site, feature and position from the end.

Positions count from the end because prompts of different lengths end alike: the answer is
predicted at the last token.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import networkx as nx

from circuits.graph import Node

Status = Literal["only-a", "only-b", "ablated", "changed", "same"]
STATUSES: tuple[Status, ...] = ("only-a", "only-b", "ablated", "changed", "same")
TOLERANCE = 0.1  # share of the larger effect below which a difference counts as none


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One node of either graph, or of both.

    Effects are in units of the metric, positive where patching the node raises it.
    """

    a: Node | None  # its key in the first graph, None when absent there
    b: Node | None
    status: Status
    effect_a: float | None  # None when absent or not estimated
    effect_b: float | None
    change: float  # effect_b - effect_a, where an absent effect counts as 0

    @property
    def node(self) -> Node:
        """The key in the second graph if the node is there, else in the first."""
        node = self.b or self.a
        assert node is not None
        return node

    @property
    def key(self) -> str:
        """The node's key, with its positions in both graphs where they differ: `x.1/2@3 | @5`."""
        if self.a is None or self.b is None or self.a == self.b:
            return str(self.node)
        return f"{self.a} | @{self.b.position}"


def differences(a: nx.DiGraph, b: nx.DiGraph, *, tolerance: float = TOLERANCE) -> list[Difference]:
    """Every node of `a` or `b`, largest change first, ties by name.

    A node in both is `same` when its effect changed by at most `tolerance` of the larger of its
    two effects, and `ablated` where one of the graphs is of a model in which it is ablated.

    Raises `ValueError` when one graph keeps positions and the other sums them, when they are
    graphs of different metrics, and when they have no dictionary in common.
    """
    metrics = [
        # Earlier versions wrote names with spaces.
        str(graph.graph.get("metric")).replace(" ", "-")
        for graph in (a, b)
    ]
    if metrics[0] != metrics[1]:
        raise ValueError(
            f"one graph is of {metrics[0]} and the other of {metrics[1]}, so effects cannot be "
            "compared: discover both with the same --metric"
        )
    if _keeps_positions(a) != _keeps_positions(b) and len(a) and len(b):
        raise ValueError(
            "one graph keeps token positions and the other sums them, so no node can match: "
            "discover both with the same --positions"
        )
    _require_common_dictionary(a, b)
    in_a, in_b = aligned(a), aligned(b)
    rows = [
        _difference(a, b, in_a.get(key), in_b.get(key), tolerance)
        for key in dict.fromkeys([*in_a, *in_b])
    ]
    return sorted(rows, key=lambda row: (-abs(row.change), str(row.node)))


def different_origins(a: nx.DiGraph, b: nx.DiGraph) -> list[str]:
    """A line for each thing, models and dictionaries, that the graphs do not have in common."""
    return [line for line in (_other_models(a, b), _other_dictionaries(a, b)) if line]


def _other_models(a: nx.DiGraph, b: nx.DiGraph) -> str | None:
    first, second = (_mapping(graph, "model") for graph in (a, b))
    hashes = first.get("hash"), second.get("hash")
    if None in hashes or hashes[0] == hashes[1]:
        return None
    told = (f"{m.get('name')} ({m['hash']})" for m in (first, second))
    return f"two models, {' and '.join(told)}: a change may come from the model"


def _other_dictionaries(a: nx.DiGraph, b: nx.DiGraph) -> str | None:
    _, apart = _shared_sites(a, b)
    if not apart:
        return None
    return (
        f"two dictionaries of {', '.join(sorted(apart))}: features of one number there are "
        "different features"
    )


def _shared_sites(a: nx.DiGraph, b: nx.DiGraph) -> tuple[set[str], set[str]]:
    """Sites with one dictionary in both graphs, and with two different ones."""
    in_a, in_b = (
        {site: d["hash"] for site, d in _mapping(graph, "dictionaries").items()} for graph in (a, b)
    )
    both = in_a.keys() & in_b.keys()
    same = {site for site in both if in_a[site] == in_b[site]}
    return same, both - same


def _require_common_dictionary(a: nx.DiGraph, b: nx.DiGraph) -> None:
    same, _ = _shared_sites(a, b)
    if not same and all(_mapping(graph, "dictionaries") for graph in (a, b)):
        raise ValueError(
            "the graphs have no dictionary in common, so no feature of one is a feature of the "
            "other: discover both with the same --dictionaries"
        )


def _mapping(graph: nx.DiGraph, name: str) -> Mapping[str, Any]:
    found = graph.graph.get(name)
    return found if isinstance(found, Mapping) else {}


def aligned(graph: nx.DiGraph) -> dict[Node, Node]:
    """The graph's nodes by their key with the position counted from the end, -1 the last."""
    end = length(graph)
    return {
        node if node.position is None else node._replace(position=node.position - end): node
        for node in graph
    }


def length(graph: nx.DiGraph) -> int:
    """Number of token columns: those the graph names, or as many as its positions need."""
    last = max((node.position for node in graph if node.position is not None), default=-1)
    return max(len(graph.graph.get("columns") or ()), last + 1)


def _keeps_positions(graph: nx.DiGraph) -> bool:
    return any(node.position is not None for node in graph)


def _difference(
    a: nx.DiGraph, b: nx.DiGraph, in_a: Node | None, in_b: Node | None, tolerance: float
) -> Difference:
    effect_a = None if in_a is None else a.nodes[in_a]["effect"]
    effect_b = None if in_b is None else b.nodes[in_b]["effect"]
    change = (effect_b or 0.0) - (effect_a or 0.0)
    status: Status = "same"
    if in_a is None or in_b is None:
        status = "only-b" if in_a is None else "only-a"
    elif a.nodes[in_a].get("ablated") or b.nodes[in_b].get("ablated"):
        status = "ablated"
    elif abs(change) > tolerance * max(abs(effect_a or 0.0), abs(effect_b or 0.0)):
        status = "changed"
    return Difference(
        a=in_a, b=in_b, status=status, effect_a=effect_a, effect_b=effect_b, change=change
    )

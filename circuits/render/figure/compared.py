"""Two circuits over each other as one figure: what each box became is told in it."""

from collections.abc import Mapping
from typing import Any

import networkx as nx

from circuits.comparison import differences
from circuits.graph import Node
from circuits.render.pages.circuit.compare_page import merge

SHARED = ("metric", "edge_units", "positions")
LONGEST = 24
"Characters of a name in the legend."


def comparison(a: nx.DiGraph, b: nx.DiGraph, names: tuple[str, str]) -> nx.DiGraph:
    """Both graphs in one, its nodes with a `badge`: only in one of them, or the supports in both.

    A node's effect and an edge's weight are the stronger of the two; its `change`, by which a
    figure chooses, is how far its support moved. Raises `ValueError` for graphs of different
    metrics.
    """
    found = merge(a, b, differences(a, b))
    found.graph |= {name: b.graph[name] for name in SHARED if name in b.graph}
    named = ", ".join(
        f"{side}: {name if len(name) <= LONGEST else '…' + name[-LONGEST:]}"
        for side, name in zip("AB", names, strict=True)
    )
    found.graph["legend"] = f"{named}, on dark: support in A → in B"
    columns = found.graph.get("columns") or ()
    for node, data in found.nodes(data=True):
        data["badge"] = _badge(data["shown"])
        data["change"] = _change(data["shown"])
        if node.kind == "token" and node.position is not None and node.position < len(columns):
            data["token"] = data["label"] = columns[node.position]
        if moved := _probabilities(node, a, b):
            data.pop("probability")
            data["badge"] = moved
    return found


def _probabilities(node: Node, a: nx.DiGraph, b: nx.DiGraph) -> str:
    """What became of the probability of an output that both graphs have; empty for any other."""
    before, after = (
        graph.nodes[node].get("probability") if node in graph else None for graph in (a, b)
    )
    if before is None or after is None or before == after:
        return ""
    return f"p = {before:.2g} → {after:.2g}"


def _change(shown: Mapping[str, Any]) -> float:
    return 0.0 if shown["group"] == "same" else abs(shown["change"] or 0.0)


def _badge(shown: Mapping[str, Any]) -> str:
    status = str(shown["group"])
    if status == "changed":
        ends = (shown["support_a"] or 0.0, shown["support_b"] or 0.0)
        return " → ".join(f"{end:+.2f}" for end in ends).replace("-", "\N{MINUS SIGN}")
    return {"only-a": "only A", "only-b": "only B", "ablated": "ablated"}.get(status, "")

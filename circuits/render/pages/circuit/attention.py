"""What a page knows of attention: the paths of the edges that it draws, and what heads do."""

from collections.abc import Mapping
from typing import Any

import networkx as nx

from circuits.render.pages.circuit.document import strongest
from circuits.render.words import readable

DIGITS = 5
"Significant digits of the numbers on a page."


def attention(graph: nx.DiGraph, heads: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """`edges`, by the ids of source and target, and `heads`; None for a graph without paths."""
    if "heads" not in graph.graph:
        return None
    edges: dict[str, dict[str, Any]] = {}
    for source, target, data in strongest(graph).edges(data=True):
        if "direct" in data:
            edges.setdefault(str(source), {})[str(target)] = _paths(data)
    return {"edges": edges, "heads": _cards(heads)}


def _paths(data: Mapping[str, Any]) -> dict[str, Any]:
    factors = {
        name: {part: _short(value) for part, value in parts.items()}
        for name, parts in data["factors"].items()
    }
    return {
        "direct": _short(data["direct"]),
        "heads": [[name, _short(weight)] for name, weight in data["heads"].items()],
        "other": _short(data.get("other_heads", 0.0)),
        "rest": _short(data["rest"]),
        "influence": _short(data["influence"]),
        "factors": factors,
    }


def _cards(heads: Mapping[str, Any] | None) -> dict[str, Any]:
    """What each head does, by its name."""
    return {head["head"]: _card(head) for head in (heads or {}).get("heads", [])}


def _card(head: Mapping[str, Any]) -> dict[str, Any]:
    queries = [
        {
            **query,
            "terms": [[readable(q), readable(k), _short(term)] for q, k, term in query["terms"]],
        }
        for query in head["queries"]
    ]
    return {"influence": head["influence"], "queries": queries}


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")

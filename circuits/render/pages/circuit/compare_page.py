"""The page of two circuits laid over each other, in the same dress as the page of one.

The merged graph stands on the columns of the longer prompt; nodes of the shorter one are moved
right, so that the last tokens of both share a column. Numbers are supports, as on `page`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import networkx as nx

from circuits.comparison import STATUSES, Difference, different_origins, length
from circuits.graph import Node
from circuits.render.pages.circuit.document import document
from circuits.render.pages.circuit.page import facts, trimmed
from circuits.render.words import support


def comparison_page(
    a: nx.DiGraph,
    b: nx.DiGraph,
    rows: Sequence[Difference],
    *,
    names: tuple[str, str],
    cards: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """One offline HTML page of what changed from `a` to `b`; `rows` is `differences(a, b)`.

    `cards` are of features of either, by `SITE/FEATURE`.
    """
    return compared(
        a,
        b,
        rows,
        names=names,
        cards={name: trimmed(card) for name, card in cards.items()},
        title=f"{names[0]} compared with {names[1]}",
        facts=[*_counts(rows, names), *_shared_facts(a, b), *_origins(a, b)],
    )


def compared(
    a: nx.DiGraph,
    b: nx.DiGraph,
    rows: Sequence[Difference],
    *,
    names: tuple[str, str],
    ablated: str = "ablated in one",
    cards: Mapping[str, Any] = MappingProxyType({}),
    **page: Any,
) -> str:
    """Both graphs over each other in a `document`, which the rest is handed on to.

    `ablated` is what nodes are called that do not move in one of the two.
    """
    merged = merge(a, b, rows)
    return document(
        merged,
        payload={
            "groups": _groups(names, ablated),
            "fields": _fields(names),
            "units": str(b.graph.get("metric") or "metric"),
            "order": "change",
        },
        describe_node=lambda node: merged.nodes[node]["shown"],
        describe_edge=lambda source, target: merged.edges[source, target]["shown"],
        cards=cards,
        **page,
    )


def merge(a: nx.DiGraph, b: nx.DiGraph, rows: Sequence[Difference]) -> nx.DiGraph:
    """Both graphs in one, nodes and edges marked with how they differ.

    A node's effect and an edge's weight are the stronger of the two.
    """
    ends = {"a": (a, _offset(a, b)), "b": (b, _offset(b, a))}
    merged = nx.DiGraph(columns=_columns(a, b))
    moved: dict[str, dict[Node, Node]] = {"a": {}, "b": {}}
    for row in rows:
        side, own = ("b", row.b) if row.b is not None else ("a", row.a)
        assert own is not None
        graph, offset = ends[side]
        key = own if own.position is None else own._replace(position=own.position + offset)
        merged.add_node(key, **graph.nodes[own])
        merged.nodes[key]["effect"] = _stronger(row.effect_a, row.effect_b)
        merged.nodes[key]["shown"] = _shown(row, b.graph) | _edited(row, b)
        if row.key != str(key):
            merged.nodes[key]["shown"]["where"] = row.key
        moved["a"] |= {row.a: key} if row.a is not None else {}
        moved["b"] |= {row.b: key} if row.b is not None else {}
    weights = {side: _moved_edges(ends[side][0], moved[side]) for side in ends}
    for edge in dict.fromkeys([*weights["a"], *weights["b"]]):
        found = (weights["a"].get(edge), weights["b"].get(edge))
        weight = _stronger(*found)
        merged.add_edge(*edge, weight=weight, shown=_shown_edge(*found, b.graph))
    return merged


def _offset(graph: nx.DiGraph, other: nx.DiGraph) -> int:
    """How far right a graph's columns move so that the last ones meet."""
    return max(length(other) - length(graph), 0)


def _columns(a: nx.DiGraph, b: nx.DiGraph) -> list[str] | None:
    """Tokens under the merged columns: one where both agree, `a | b` where they do not."""
    count = max(length(a), length(b))
    if not count:
        return None
    padded = [[""] * (count - length(g)) + _tokens(g) for g in (a, b)]
    return [
        left if left == right or not right else right if not left else f"{left} |{right}"
        for left, right in zip(*padded, strict=True)
    ]


def _tokens(graph: nx.DiGraph) -> list[str]:
    named = [str(token) for token in graph.graph.get("columns") or ()]
    return named + [str(p) for p in range(len(named), length(graph))]


def _shown(row: Difference, meta: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "group": row.status,
        "support_a": support(row.effect_a, meta),
        "support_b": support(row.effect_b, meta),
        "change": support(row.change, meta),
        "support": support(_stronger(row.effect_a, row.effect_b), meta),
    }


def _edited(row: Difference, b: nx.DiGraph) -> dict[str, Any]:
    """What an edit does to a node of the second graph, where one does anything."""
    told = None if row.b is None else b.nodes[row.b].get("edited")
    return {"edited": str(told)} if told else {}


def _shown_edge(in_a: float | None, in_b: float | None, meta: Mapping[str, Any]) -> dict[str, Any]:
    group = "only-b" if in_a is None else "only-a" if in_b is None else "same"
    if group == "same" and in_a != in_b:
        group = "changed"
    return {"group": group, "support": support(_stronger(in_a, in_b), meta)}


def _stronger(first: float | None, second: float | None) -> float | None:
    return max((first, second), key=lambda value: -1.0 if value is None else abs(value))


def _moved_edges(graph: nx.DiGraph, moved: Mapping[Node, Node]) -> dict[tuple[Node, Node], float]:
    return {(moved[u], moved[v]): weight for u, v, weight in graph.edges(data="weight")}


def _groups(names: tuple[str, str], ablated: str) -> list[dict[str, Any]]:
    labels = (
        f"only in {names[0]}",
        f"only in {names[1]}",
        ablated,
        "changed",
        "same in both",
    )
    dashed = {"only-a", "ablated"}
    return [
        {"name": status, "label": label, "dashed": status in dashed}
        for status, label in zip(STATUSES, labels, strict=True)
    ]


def _fields(names: tuple[str, str]) -> list[dict[str, Any]]:
    def field(key: str, label: str) -> dict[str, Any]:
        return {"key": key, "label": label, "signed": True, "missing": "absent"}

    return [
        field("support_a", f"support, {names[0]}"),
        field("support_b", f"support, {names[1]}"),
        field("change", "change"),
    ]


def _counts(rows: Sequence[Difference], names: tuple[str, str]) -> list[tuple[str, str]]:
    labels = (f"Only {names[0]}", f"Only {names[1]}", "Ablated", "Changed", "Same")
    return [
        (label, str(sum(row.status == status for row in rows)))
        for status, label in zip(STATUSES, labels, strict=True)
    ]


def _origins(a: nx.DiGraph, b: nx.DiGraph) -> list[tuple[str, str]]:
    return [("Note", line) for line in different_origins(a, b)]


def _shared_facts(a: nx.DiGraph, b: nx.DiGraph) -> list[tuple[str, str]]:
    """What both graphs say of themselves, and both values where they differ."""
    in_a, in_b = dict(facts(a.graph)), dict(facts(b.graph))
    return [
        (term, value if value == in_b[term] else f"{value} / {in_b[term]}")
        for term, value in in_a.items()
        if term in in_b
    ]

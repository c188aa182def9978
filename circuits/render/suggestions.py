"""Groups of features that a page suggests: alike in what they connect to and in what they promote.

The likeness of two features is the cosine of their edges, each feature's edges written as one
vector (the weight from every source and to every target), plus the share of promoted tokens that
both have. Louvain communities of that graph are the groups; no model is run, so a group is a
guess until `circuits verify` has moved its members together.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Any

import networkx as nx

from circuits.graph import Node, ordered
from circuits.render.words import caption, readable

MOST_FEATURES = 150  # the strongest are grouped
ALIKE = 0.35  # pairs less alike than this are not joined
SIZES = range(2, 13)  # members of a group; a larger one says nothing
MOST_GROUPS = 12
TOKENS = 12  # promoted tokens of a feature that are compared
SEED = 0


def suggested_groups(graph: nx.DiGraph, cards: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Groups with `name`, `members` (keys), and `why`, the strongest first; each feature in one."""
    features = [node for node in ordered(graph) if node.kind == "feature"][:MOST_FEATURES]
    tokens = {node: _promoted(node, cards) for node in features}
    alike = _likeness(graph, features, tokens)
    found = nx.community.louvain_communities(alike, weight="weight", seed=SEED)
    groups = [sorted(members, key=features.index) for members in found if len(members) in SIZES]
    groups.sort(key=lambda members: -sum(_strength(graph, node) for node in members))
    return [_described(graph, members, tokens) for members in groups[:MOST_GROUPS]]


def _likeness(
    graph: nx.DiGraph, features: list[Node], tokens: Mapping[Node, frozenset[str]]
) -> nx.Graph:
    """Features joined where they are alike."""
    vectors = {node: _edges_of(graph, node) for node in features}
    alike = nx.Graph()
    alike.add_nodes_from(features)
    for a, b in combinations(features, 2):
        weight = _cosine(vectors[a], vectors[b]) + _overlap(tokens[a], tokens[b])
        if weight >= ALIKE:
            alike.add_edge(a, b, weight=weight)
    return alike


def _edges_of(graph: nx.DiGraph, node: Node) -> dict[tuple[str, Node], float]:
    """All edges of a node as a vector of unit length."""
    rows = {("from", u): float(w) for u, _, w in graph.in_edges(node, data="weight")}
    rows |= {("to", v): float(w) for _, v, w in graph.out_edges(node, data="weight")}
    length = math.sqrt(sum(value**2 for value in rows.values()))
    return {end: value / length for end, value in rows.items()} if length else {}


def _cosine(a: Mapping[Any, float], b: Mapping[Any, float]) -> float:
    return max(sum((value * b[end] for end, value in a.items() if end in b), 0.0), 0.0)


def _overlap(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def _promoted(node: Node, cards: Mapping[str, Any]) -> frozenset[str]:
    card = cards.get(f"{node.site}/{node.feature}") or {}
    return frozenset(_pairs(card))


def _pairs(card: Mapping[str, Any]) -> Iterable[str]:
    return (readable(str(token)) for token, _ in list(card.get("promoted") or [])[:TOKENS])


def _strength(graph: nx.DiGraph, node: Node) -> float:
    return abs(float(graph.nodes[node]["effect"] or 0.0))


def _described(
    graph: nx.DiGraph, members: list[Node], tokens: Mapping[Node, frozenset[str]]
) -> dict[str, Any]:
    """A group with the name that its members share most, and what they share."""
    labels = Counter(caption(node, graph.nodes[node]) for node in members)
    promote = Counter(token for node in members for token in tokens[node])
    feed = Counter(v for node in members for v in graph.successors(node))
    named = {f"“{token}”": n for token, n in promote.items()}
    targets = {_target(node, graph): n for node, n in feed.items()}
    why = [_shared("promote", named, len(members)), _shared("feed", targets, len(members))]
    return {
        "name": labels.most_common(1)[0][0],
        "members": [str(node) for node in members],
        "why": "; ".join(filter(None, why)) or "like edges",
    }


def _target(node: Node, graph: nx.DiGraph) -> str:
    return "the output" if node.kind == "logit" else caption(node, graph.nodes[node])


def _shared(verb: str, counts: Mapping[str, int], of: int) -> str:
    """What most members have in common: `3 of 4 promote “ are”, “ were”`."""
    most = max(counts.values(), default=0)
    if 2 * most <= of:
        return ""
    names = sorted((name for name, n in counts.items() if n == most), key=lambda n: (len(n), n))
    return f"{'all' if most == of else f'{most} of {of}'} {verb} {', '.join(names[:3])}"

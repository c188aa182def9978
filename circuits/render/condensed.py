"""A circuit in fewer boxes than its paths have nodes: edges stand for stretches of paths.

What is kept are the strongest nodes, of a few sites where a figure has room for no more, with one
token and one output at least. Every one of them is on a path from a kept token to a kept output; an
edge that stands for a stretch of it has an attribute `via`, the nodes that are left out there.
"""

import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise
from typing import Any

import networkx as nx

from circuits.graph import Node, ordered
from circuits.render.paths import OUTPUTS, cheapest, ends_of, with_edges
from circuits.render.words import acts_on_target


def condensed(
    graph: nx.DiGraph,
    candidates: Sequence[Node],
    room: int,
    *,
    sites: int | None = None,
    always: AbstractSet[Node] = frozenset(),
    beside: Sequence[Node] = (),
) -> nx.DiGraph:
    """At most `room` of the candidates, two at least, the first before others, on paths of `graph`.

    `sites` is how many there may be between tokens and outputs, those of the largest summed
    |effect|; nodes of `always` are of none of them. Nodes of `beside` are added without an edge.
    Something in `graph` must lead to an output.
    """
    outputs, tokens, inner = _on_paths(graph, candidates, room)
    if sites is not None:
        free = [node for node in inner if node not in always]
        named = _strongest_sites(graph, free[: 2 * room], sites)
        inner = [node for node in inner if node in always or node.site in named]
    ends = [*outputs, *tokens]
    kept = dict.fromkeys([*ends, *inner[: max(0, room - len(ends))]])
    part = with_edges(graph, [*kept, *beside], [])
    for node in kept:
        up = cheapest(graph.succ, node, lambda n: n in outputs, kept, 1.0)
        down = cheapest(graph.pred, node, lambda n: n in tokens, kept, 1.0)
        for stretch in _stretches([*reversed(down), *up[1:]], kept):
            ends_of_it = (stretch[0], stretch[-1])
            if len(stretch) == 2:
                part.add_edge(*ends_of_it, **graph.edges[ends_of_it])
            elif not part.has_edge(*ends_of_it):
                part.add_edge(*ends_of_it, **_as_one(graph, stretch))
    return part


def _on_paths(
    graph: nx.DiGraph, candidates: Sequence[Node], room: int
) -> tuple[list[Node], list[Node], list[Node]]:
    """Outputs, where their paths begin, and the candidates between, as many ends as there may be.

    The strongest ends, where none is a candidate.
    """
    sources, ends = ends_of(graph)
    some, ranked = max(1, room // OUTPUTS), ordered(graph)

    def first(of: AbstractSet[Node]) -> list[Node]:
        found = [n for n in dict.fromkeys(candidates) if n in of][:some]
        return found or [n for n in ranked if n in of][:1]

    outputs = first(ends)
    tokens = first(sources & _all(nx.ancestors(graph, node) for node in outputs))
    after = _all(nx.descendants(graph, node) for node in tokens)
    outputs = [node for node in outputs if node in after]
    before = _all(nx.ancestors(graph, node) for node in outputs)
    taken = {*outputs, *tokens}
    inner = [n for n in dict.fromkeys(candidates) if n in after & before and n not in taken]
    return outputs, tokens, inner


def _all(sets: Iterable[set[Node]]) -> set[Node]:
    return set().union(*sets)


def _strongest_sites(graph: nx.DiGraph, nodes: Iterable[Node], count: int) -> set[str]:
    sums: dict[str, float] = {}
    for node in nodes:
        sums[node.site] = sums.get(node.site, 0.0) + abs(graph.nodes[node]["effect"] or 0.0)
    return set(sorted(sums, key=lambda site: (-sums[site], site))[:count])


def _stretches(path: Sequence[Node], kept: Iterable[Node]) -> list[list[Node]]:
    """A path cut at the nodes that are kept, each of which ends one part and begins the next."""
    stops, parts = set(kept), [[path[0]]]
    for node in path[1:]:
        parts[-1].append(node)
        if node in stops:
            parts.append([node])
    return parts[:-1]


def _as_one(graph: nx.DiGraph, path: Sequence[Node]) -> dict[str, Any]:
    """The edge that stands for a path: as weak as its weakest, with the sign that it has in all.

    Weights of the metric say what of the source's effect goes that way: the sign is the first
    edge's. Weights of targets' pre-activations multiply.
    """
    weights = [graph.edges[edge]["weight"] for edge in pairwise(path)]
    signed = weights if acts_on_target(graph.graph) else weights[:1]
    sign = math.prod(math.copysign(1.0, weight) for weight in signed)
    return {"weight": sign * min(map(abs, weights)), "via": tuple(path[1:-1])}

"""The part of a graph that a figure has room for, chosen so that it is a circuit.

Every node of it lies on a path from a token to an output, or from an error where errors are
constants, as in replacement graphs; in a graph without tokens, or where none reaches an output,
from a node that nothing in the graph leads to. Where there is no room for all
nodes of even one path, edges stand for parts of paths (`circuits.render.condensed`).
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import networkx as nx

from circuits.graph import Edge, Node, ordered
from circuits.render.condensed import condensed
from circuits.render.paths import cheapest, ends_of, in_order, with_edges


def circuit_of(
    graph: nx.DiGraph,
    max_nodes: int,
    *,
    first: Sequence[Node] = (),
    fill: bool = True,
    sites: int | None = None,
) -> nx.DiGraph:
    """At most `max_nodes` nodes of `graph`, each on a path to an output, and their strongest edges.

    Nodes come in the order of |effect|, those of `first` before, each with the path that asks for
    fewest other nodes, by strong edges where there is a choice; without `fill`, those of `first`
    alone. Nodes that were ablated have no path and are kept as they are. Where no path is as short
    as that, or nodes of so many `sites` at most are to be drawn, the strongest nodes are kept and
    edges stand for parts of paths. A graph in which nothing leads to an output gives its strongest
    nodes.
    """
    room = max_nodes - len(ablated := _ablated(graph)[: max(1, max_nodes // 3)])
    sources, ends = ends_of(graph)
    candidates = [*first, *(in_order(graph, max_nodes) if fill or not first else ())]
    if not sources:
        return with_edges(graph, candidates[:max_nodes], [])
    fewer = partial(condensed, graph, candidates, room, always=set(first), beside=ablated)
    if sites is not None:
        return fewer(sites=sites)
    chosen: dict[Node, None] = {}
    path_edges: list[Edge] = []

    def through(node: Node, weakness: float) -> list[Node]:
        up = cheapest(graph.succ, node, lambda n: n in chosen or n in ends, chosen, weakness)
        down = cheapest(
            graph.pred,
            node,
            lambda n: n in sources or (n in chosen and n not in ends),
            chosen,
            weakness,
        )
        return [*reversed(down), *up[1:]] if up and down else []

    for node in candidates:
        if node in chosen:
            continue
        path = through(node, 1.0)
        if not chosen and len(path) > room:
            path = through(node, 0.0)
        new = [n for n in path if n not in chosen]
        if path and len(chosen) + len(new) <= room:
            chosen |= dict.fromkeys(new)
            path_edges += pairwise(path)
    return with_edges(graph, [*chosen, *ablated], path_edges) if chosen else fewer()


def _ablated(graph: nx.DiGraph) -> list[Node]:
    """Those of the graph that an ablation left: laid over another graph they have its edges."""
    alone = (node for node in ordered(graph) if not graph.degree(node))
    return [node for node in alone if graph.nodes[node].get("ablated")]

"""The part of a graph that a figure has room for, chosen so that it is a circuit.

Every node of it lies on a path from a token to an output; in a graph without tokens, or where none
reaches an output, from a node that nothing in the graph leads to.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

import networkx as nx

from circuits.graph import Node, ordered

EDGES_PER_NODE = 2
OUTPUTS = 4
"One box in so many is an output at most, before paths ask for more."

Edge = tuple[Node, Node]


def circuit_of(
    graph: nx.DiGraph, max_nodes: int, *, first: Sequence[Node] = (), fill: bool = True
) -> nx.DiGraph:
    """At most `max_nodes` nodes of `graph`, each on a path to an output, and their strongest edges.

    Nodes come in the order of |effect|, those of `first` before, each with the path that asks for
    fewest other nodes, by strong edges where there is a choice; without `fill`, those of `first`
    alone. Nodes that were ablated have no path and are kept as they are. One path is drawn however
    small `max_nodes` is, the shortest where it is too small for any. A graph in which nothing leads
    to an output gives its strongest nodes.
    """
    room = max_nodes - len(ablated := _ablated(graph)[: max(1, max_nodes // 3)])
    sources, ends = _ends(graph)
    candidates = [*first, *(_in_order(graph, max_nodes) if fill or not first else ())]
    if not sources:
        return _with_edges(graph, candidates[:max_nodes], [])
    chosen: dict[Node, None] = {}
    path_edges: list[Edge] = []

    def through(node: Node, weakness: float) -> list[Node]:
        up = _path(graph.succ, node, lambda n: n in chosen or n in ends, chosen, weakness)
        down = _path(
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
        if path and (not chosen or len(chosen) + len(new) <= room):
            chosen |= dict.fromkeys(new)
            path_edges += pairwise(path)
    return _with_edges(graph, [*chosen, *ablated], path_edges)


def _ablated(graph: nx.DiGraph) -> list[Node]:
    """Those of the graph that an ablation left: laid over another graph they have its edges."""
    alone = (node for node in ordered(graph) if not graph.degree(node))
    return [node for node in alone if graph.nodes[node].get("ablated")]


def _in_order(graph: nx.DiGraph, max_nodes: int) -> list[Node]:
    """The strongest first, and before them outputs, as many as a figure has room for."""
    ranked = ordered(graph)
    outputs = [node for node in ranked if node.kind == "logit"][: max(1, max_nodes // OUTPUTS)]
    return [*outputs, *(node for node in ranked if node.kind != "logit")]


def _ends(graph: nx.DiGraph) -> tuple[set[Node], set[Node]]:
    """Where paths begin and where they end; both empty where no path leads to an output."""
    ends = {node for node in graph if node.kind == "logit" and graph.in_degree(node)}
    reach = _reaching(graph, ends) - ends
    tokens = {node for node in reach if node.kind == "token"}
    sources = tokens or {node for node in reach if not graph.in_degree(node)}
    # A cycle of groups has no beginning: then all that reach an output count.
    return sources or reach, ends


def _reaching(graph: nx.DiGraph, ends: Iterable[Node]) -> set[Node]:
    found, todo = set(ends), list(ends)
    while todo:
        fresh = [node for node in graph.pred[todo.pop()] if node not in found]
        found.update(fresh)
        todo += fresh
    return found


def _path(
    neighbours: Mapping[Node, Mapping[Node, Mapping[str, float]]],
    start: Node,
    arrived: Callable[[Node], bool],
    chosen: Mapping[Node, None],
    weakness: float,
) -> list[Node]:
    """The cheapest way from `start` to where it has arrived; empty where there is none.

    A node that is not yet drawn costs 1, an edge `weakness` times the share by which a stronger one
    outdoes it.
    """
    before: dict[Node, Node | None] = {}
    queue: list[tuple[float, str, str, Node, Node | None]] = [(0.0, "", "", start, None)]
    while queue:
        cost, _, _, node, came_from = heapq.heappop(queue)
        if node in before:
            continue
        before[node] = came_from
        if arrived(node):
            return _back(node, before)
        near = neighbours[node]
        strongest = max((abs(edge["weight"]) for edge in near.values()), default=0.0) or 1.0
        for other, edge in near.items():
            if other not in before:
                weak = weakness * (1 - abs(edge["weight"]) / strongest)
                step = weak + (other not in chosen)
                heapq.heappush(queue, (cost + step, str(other), str(node), other, node))
    return []


def _back(node: Node, before: Mapping[Node, Node | None]) -> list[Node]:
    path = [node]
    while (previous := before[path[-1]]) is not None:
        path.append(previous)
    return path[::-1]


def _with_edges(graph: nx.DiGraph, nodes: Sequence[Node], path_edges: Iterable[Edge]) -> nx.DiGraph:
    """The paths, each node's strongest edge in and out, then the strongest of all."""
    part = nx.DiGraph(graph.subgraph(nodes))
    edges = sorted(part.edges(data="weight"), key=lambda e: (-abs(e[2]), str(e[0]), str(e[1])))
    kept: dict[Edge, None] = dict.fromkeys(path_edges)
    seen: set[tuple[str, Node]] = set()
    for source, target, _ in edges:
        if ("out", source) not in seen or ("in", target) not in seen:
            kept[source, target] = None
        seen |= {("out", source), ("in", target)}
    for source, target, _ in edges:
        if len(kept) >= EDGES_PER_NODE * len(nodes):
            break
        kept[source, target] = None
    part.remove_edges_from([edge for edge in part.edges if edge not in kept])
    return part

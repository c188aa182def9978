"""Paths of a graph: where they begin and end, the cheapest one, and the edges that are drawn."""

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence

import networkx as nx

from circuits.graph import Edge, Node, ordered

EDGES_PER_NODE = 2
OUTPUTS = 4
"One box in so many is an output at most, before paths ask for more."


def in_order(graph: nx.DiGraph, max_nodes: int) -> list[Node]:
    """The strongest first, and before them outputs, as many as a figure has room for.

    Of a comparison those that changed most, `change`.
    """
    ranked = sorted(ordered(graph), key=lambda n: -graph.nodes[n].get("change", 0.0))
    outputs = [node for node in ranked if node.kind == "logit"][: max(1, max_nodes // OUTPUTS)]
    return [*outputs, *(node for node in ranked if node.kind != "logit")]


def ends_of(graph: nx.DiGraph) -> tuple[set[Node], set[Node]]:
    """Where paths begin and where they end; both empty where no path leads to an output.

    They begin at tokens, and at errors where nothing leads to any: those of a replacement model are
    constants. Without either they begin where nothing in the graph leads to.
    """
    ends = {node for node in graph if node.kind == "logit" and graph.in_degree(node)}
    reach = _reaching(graph, ends) - ends
    given = {node for node in reach if node.kind == "token"}
    errors = [node for node in graph if node.kind == "error"]
    if not any(graph.in_degree(node) for node in errors):
        given |= reach.intersection(errors)
    sources = given or {node for node in reach if not graph.in_degree(node)}
    # A cycle of groups has no beginning: then all that reach an output count.
    return sources or reach, ends


def _reaching(graph: nx.DiGraph, ends: Iterable[Node]) -> set[Node]:
    found, todo = set(ends), list(ends)
    while todo:
        fresh = [node for node in graph.pred[todo.pop()] if node not in found]
        found.update(fresh)
        todo += fresh
    return found


def cheapest(
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


def with_edges(graph: nx.DiGraph, nodes: Sequence[Node], path_edges: Iterable[Edge]) -> nx.DiGraph:
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

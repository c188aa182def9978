"""Edit a graph: remove, merge and label nodes and edges; each gives a copy.

A graph is a plain `networkx.DiGraph`, so anything of NetworkX may be done to it too. A merged
node is called `group/NAME` and keeps which nodes and edges it stands for:

    node   kind "group", label NAME, members [id, ...], inside [[source, target, weight], ...]
    edge   weight the sum, stands_for [[source, target, weight], ...]

`expanded` gives the nodes and edges back, for whatever runs the model.
"""

from collections.abc import Iterable, Iterator
from itertools import product
from typing import Any

import networkx as nx

from circuits.graph import Edge, Node
from hooked_qwen.nodes import GROUP

Weighted = list[Any]
"[source, target, weight], as a file holds an edge."


def removed(
    graph: nx.DiGraph, nodes: Iterable[Node] = (), edges: Iterable[Edge] = ()
) -> nx.DiGraph:
    """The graph without some nodes and edges; `ValueError` for one that it does not have."""
    nodes, edges = list(nodes), list(edges)
    _require(graph, nodes)
    for source, target in edges:
        if not graph.has_edge(source, target):
            raise ValueError(f"there is no edge {source} -> {target} in the graph")
    found = graph.copy()
    found.remove_edges_from(edges)
    found.remove_nodes_from(nodes)
    return found


def merged(graph: nx.DiGraph, nodes: Iterable[Node], name: str) -> nx.DiGraph:
    """The graph with some nodes as one, called `group/NAME`; edges to and from them are summed.

    Its effect is the sum of theirs. Edges among them are kept inside. Raises `ValueError` for
    nodes that the graph does not have, for an output, and for a name that is taken.
    """
    some, group = list(dict.fromkeys(nodes)), Node(GROUP, name)
    _require(graph, some)
    if not name or group in graph or not some or any(n.kind == "logit" for n in some):
        raise ValueError(
            f"cannot merge {len(some)} nodes as {group}: expected features, errors or tokens, and "
            "a name that no group has"
        )
    found = graph.copy()
    effects = [graph.nodes[n].get("effect") for n in some]
    members = [member for n in some for member in _members(graph, n)]
    inside = [e for u, v in graph.subgraph(some).edges for e in _stands_for(graph, u, v)]
    inside += [e for n in some for e in graph.nodes[n].get("inside", ())]
    sums: dict[Edge, list[Weighted]] = {}
    for u, v in graph.edges:
        ends = (group if u in some else u), (group if v in some else v)
        if ends != (u, v) and ends != (group, group):
            sums.setdefault(ends, []).extend(_stands_for(graph, u, v))
    found.remove_nodes_from(some)
    found.add_node(
        group,
        kind="group",
        token=None,
        activation=None,
        effect=sum(e for e in effects if e is not None),
        exact=None,
        label=name,
        members=members,
        inside=inside,
    )
    for (u, v), edges in sums.items():
        found.add_edge(u, v, weight=sum(weight for *_, weight in edges), stands_for=edges)
    return found


def labelled(graph: nx.DiGraph, what: Node | Edge, text: str) -> nx.DiGraph:
    """The graph with a node, or an edge, called `text`."""
    found = graph.copy()
    if isinstance(what, Node):
        _require(graph, [what])
        found.nodes[what]["label"] = text
        return found
    if not graph.has_edge(*what):
        raise ValueError(f"there is no edge {what[0]} -> {what[1]} in the graph")
    found.edges[what]["label"] = text
    return found


def expanded(graph: nx.DiGraph) -> nx.DiGraph:
    """The graph with every group taken apart into the nodes and edges that it stands for.

    An edge of a group that does not say what it stands for, as one drawn by hand, stands for one
    between every two of the members.
    """
    found = nx.DiGraph(**graph.graph)
    for node, data in graph.nodes(data=True):
        if node.kind != GROUP:
            found.add_node(node, **data)
            continue
        found.add_nodes_from(map(Node.parse, _members(graph, node)))
    for _, data in graph.nodes(data=True):
        _add(found, data.get("inside", ()))
    for u, v, data in graph.edges(data=True):
        if GROUP not in (u.kind, v.kind):
            found.add_edge(u, v, **data)
        elif "stands_for" in data:
            _add(found, data["stands_for"])
        else:
            ends = product(_members(graph, u), _members(graph, v))
            _add(found, ([a, b, data.get("weight", 0.0)] for a, b in ends))
    return found


def _add(graph: nx.DiGraph, edges: Iterable[Weighted]) -> None:
    """Add edges; those of members that were taken out of a group since are left out."""
    for source, target, weight in edges:
        ends = Node.parse(source), Node.parse(target)
        if ends[0] in graph and ends[1] in graph:
            graph.add_edge(*ends, weight=weight)


def _members(graph: nx.DiGraph, node: Node) -> list[str]:
    return list(graph.nodes[node]["members"]) if node.kind == GROUP else [str(node)]


def _stands_for(graph: nx.DiGraph, u: Node, v: Node) -> Iterator[Weighted]:
    data = graph.edges[u, v]
    yield from data.get("stands_for") or [[str(u), str(v), data["weight"]]]


def _require(graph: nx.DiGraph, nodes: Iterable[Node]) -> None:
    for node in nodes:
        if node not in graph:
            raise ValueError(f"there is no node {node} in the graph")

"""Sets of nodes in files: what a person selected, or left of a graph that was edited by hand.

    ["mlp_out.3/812@5", ...]                        a list of nodes
    {"groups": {NAME: ["mlp_out.3/812@5", ...]}}    the saved state of a page: groups by name
    graph.json                                      the nodes of a graph, of groups their members
    nx.node_link_data(graph) as JSON                the same from NetworkX; also .graphml and .gexf

Nodes are written as in `graph.json`, or as the list of their key, `["mlp_out.3", 812, 5]`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx

from circuits import graph as graphs
from circuits.graph import Node
from hooked_qwen.nodes import GROUP

ERRORS = (OSError, ValueError, TypeError, KeyError, AttributeError, nx.NetworkXError)
NESTED = ("members", "inside", "stands_for")
"Attributes that are lists: GraphML and GEXF hold them as JSON text."
READERS: dict[str, Callable[[Path], nx.Graph]] = {
    ".graphml": nx.read_graphml,
    ".gexf": nx.read_gexf,
}


def read_nodes(path: Path, groups: Sequence[str] = ()) -> tuple[Node, ...]:
    """The nodes in a file, those of some `groups` of it where these are named.

    Raises `ValueError` with one line for a file of another form, and for groups that it lacks.
    """
    try:
        members = _by_group(path)
    except ERRORS as error:
        raise ValueError(f"cannot read nodes from {path}: {error}") from None
    missing = [name for name in groups if name not in members]
    named = [name for name in members if name]
    if missing:
        there = ", ".join(map(repr, named)) or "none"
        raise ValueError(f"{path} has no group {missing[0]!r}: its groups are {there}")
    if not groups and "" not in members and len(named) > 1:
        raise ValueError(
            f"{path} has {len(named)} groups, {', '.join(map(repr, named))}: say which with --group"
        )
    chosen = groups or list(members)
    return tuple(dict.fromkeys(node for name in chosen for node in members[name]))


def read_graph(path: Path) -> nx.DiGraph:
    """A graph from a file: ours, what `nx.node_link_data` gives, GraphML or GEXF.

    Raises `ValueError` with one line for a file that holds none.
    """
    try:
        if path.suffix in READERS:
            return _with_keys(READERS[path.suffix](path))
        record = json.loads(path.read_text(encoding="utf-8"))
        if record.get("schema") == graphs.SCHEMA:
            return graphs.load(path)
        edges = "links" if "links" in record else "edges"
        for node in record["nodes"]:
            # A list is no key; NetworkX would take one for a tuple.
            node["id"] = str(_node(node["id"]))
        for edge in record[edges]:
            edge |= {end: str(_node(edge[end])) for end in ("source", "target")}
        return _with_keys(nx.node_link_graph(record, edges=edges))
    except ERRORS as error:
        raise ValueError(f"cannot read a graph from {path}: {error}") from None


def _with_keys(graph: nx.Graph) -> nx.DiGraph:
    """A graph whose nodes are called by their ids, with our keys."""
    if not graph.is_directed():
        raise ValueError("its edges have no direction")
    found = nx.DiGraph(**graph.graph)
    for node, data in graph.nodes(data=True):
        found.add_node(_node(node), **_values(data))
    for source, target, data in graph.edges(data=True):
        found.add_edge(_node(source), _node(target), **_values(data))
    return found


def _values(data: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes, those that other formats hold as JSON text read."""
    return {
        name: json.loads(value) if name in NESTED and isinstance(value, str) else value
        for name, value in data.items()
    }


def _by_group(path: Path) -> dict[str, list[Node]]:
    """The nodes of each group; those in none under no name."""
    if path.suffix in READERS:
        return _groups_of(read_graph(path))
    record = json.loads(path.read_text(encoding="utf-8"))
    if isinstance(record, list):
        return {"": _nodes(record)}
    if isinstance(record.get("groups"), Mapping):
        return {str(name): _nodes(ids) for name, ids in record["groups"].items()}
    if record.get("schema") == graphs.SCHEMA or "nodes" in record:
        return _groups_of(read_graph(path))
    raise ValueError(
        'expected a list of nodes, {"groups": {NAME: [nodes]}}, a graph.json, or what '
        "nx.node_link_data gives"
    )


def _groups_of(graph: nx.DiGraph) -> dict[str, list[Node]]:
    found: dict[str, list[Node]] = {"": []}
    for node, data in graph.nodes(data=True):
        if node.kind == GROUP:
            found[str(node.feature)] = _nodes(data["members"])
        else:
            found[""].append(node)
    return found


def _nodes(ids: Any) -> list[Node]:
    if not isinstance(ids, list):
        raise ValueError(f"expected a list of nodes, got {ids!r}")
    return [_node(one) for one in ids]


def _node(written: Any) -> Node:
    if isinstance(written, str):
        return Node.parse(written)
    site, feature, position = written
    at = "" if position is None else f"@{position}"
    return Node.parse("token" + at if site == "embed" else f"{site}/{feature}{at}")

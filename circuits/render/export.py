"""A graph for other programs: what NetworkX's own writers take, and so Gephi and Cytoscape.

nx.write_gexf(portable(graph), "circuit.gexf")
nx.write_graphml(portable(graph), "circuit.graphml")
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.graph import Node
from circuits.render.exporters import Drawn
from circuits.render.words import readable
from hooked_qwen.files import write_atomically

WRITERS: dict[str, Callable[[nx.DiGraph, Path], None]] = {
    "gexf": nx.write_gexf,
    "graphml": nx.write_graphml,
}


def portable(graph: nx.DiGraph) -> nx.DiGraph:
    """A copy with plain names and values only: `graph` has tuples for nodes, lists and None.

    Nodes are called as in `graph.json` and have their site, feature and position as attributes.
    What is None is left out, text has no control characters, and what is nested under `meta` is
    JSON text.
    """
    names = {node: readable(str(node)) for node in graph}
    copy = nx.DiGraph(**_plain(graph.graph))
    for node, data in graph.nodes(data=True):
        copy.add_node(names[node], **_plain(_key(node) | data))
    for source, target, data in graph.edges(data=True):
        copy.add_edge(names[source], names[target], **_plain(data))
    return copy


def write(graph: nx.DiGraph, path: Path) -> None:
    """Write `graph` as `.gexf` or `.graphml`, whole or not at all."""
    writer = WRITERS[path.suffix.removeprefix(".")]
    write_atomically(path, lambda partial: writer(portable(graph), partial))


def export_for_networkx(drawn: Drawn, suffix: str) -> list[Path]:
    """The graph as one of `WRITERS` writes it."""
    path = drawn.folder / f"graph.{suffix}"
    write(drawn.graph, path)
    return [path]


def _key(node: Node) -> dict[str, Any]:
    return {"site": node.site, "feature": str(node.feature), "position": node.position}


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in values.items() if value is not None}


def _value(value: Any) -> str | bool | int | float:
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, bool | int | float):
        return value
    return readable(json.dumps(value, ensure_ascii=False, default=str))

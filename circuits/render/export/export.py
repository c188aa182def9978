"""A graph for other programs: Gephi and Cytoscape, Graphviz, tables.

nx.write_gexf(portable(graph), "circuit.gexf")
nx.write_graphml(portable(graph), "circuit.graphml")
nodes_table(graph).to_csv("nodes.csv")
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx
import pandas as pd

from circuits.graph import Node, as_json, ordered
from circuits.render.exporters import Drawn
from circuits.render.layout import depth
from circuits.render.words import OPPOSES, caption, edge_support, readable, stance, support
from hooked_qwen.files import write_atomically, write_text_atomically

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


def export_dot(drawn: Drawn, suffix: str) -> list[Path]:
    """The graph in the language of Graphviz."""
    path, text = drawn.folder / f"graph.{suffix}", dot(drawn.graph)
    write_text_atomically(path, text)
    return [path]


def dot(graph: nx.DiGraph) -> str:
    """The graph for `dot -Tpdf`: a row for each site, dashes where a node or an edge opposes."""
    # An attribute of our own for the number: Graphviz's `weight` is an integer, and pulls nodes.
    lines = ["digraph circuit {", "  rankdir=BT; node [fontsize=10];"]
    sites: dict[str, list[str]] = {}
    for node in ordered(graph):
        data = graph.nodes[node]
        value = support(data.get("effect"), graph.graph)
        said = caption(node, data)
        name = str(node) if said in (str(node), f"#{node.feature}") else f"{node}  {said}"
        style = _dot_style(stance(value), SHAPES.get(node.kind, "ellipse"))
        sites.setdefault(node.site, []).append(_quoted(str(node)))
        given = "" if value is None else f", support={float(value):.7g}"
        lines.append(f"  {_quoted(str(node))} [label={_quoted(name)}{given}{style}];")
    for site in sorted(sites, key=depth):
        lines.append(f"  {{ rank=same; {'; '.join(sites[site])}; }}")
    largest = max((abs(w) for _, _, w in graph.edges(data="weight")), default=0.0) or 1.0
    for source, target, weight in graph.edges(data="weight"):
        ends = f"{_quoted(str(source))} -> {_quoted(str(target))}"
        value = edge_support(weight, graph.graph)
        width = f"support={value:.7g}, penwidth={0.3 + 2.7 * abs(weight) / largest:.2f}"
        lines.append(f"  {ends} [{width}{_dot_style(stance(value), '')}];")
    return "\n".join([*lines, "}"]) + "\n"


SHAPES = {"token": "box", "logit": "box", "error": "diamond"}
"Of nodes in Graphviz; features are ellipses."


def _dot_style(stands: str, shape: str) -> str:
    """Attributes after the first."""
    drawn = f", shape={shape}" if shape else ""
    return drawn + (", style=dashed" if stands == OPPOSES else "")


def _quoted(text: str) -> str:
    """`text` as it is, whatever it holds: a backslash or a quote means nothing in it."""
    plain = readable(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def export_tables(drawn: Drawn, suffix: str) -> list[Path]:
    """Nodes and edges as two tables, `nodes_table` and `edges_table`."""
    written = []
    for name, table in (("nodes", nodes_table(drawn.graph)), ("edges", edges_table(drawn.graph))):
        path = drawn.folder / f"{name}.{suffix}"
        writer = table.to_csv if suffix == "csv" else table.to_parquet
        write_atomically(path, lambda partial, writer=writer: writer(partial, index=False))
        written.append(path)
    return written


def nodes_table(graph: nx.DiGraph) -> pd.DataFrame:
    """Every node, strongest first: its id, where it is, and its attributes, as in `graph.json`."""
    return _table(as_json(graph)["nodes"], NODE_COLUMNS)


def edges_table(graph: nx.DiGraph) -> pd.DataFrame:
    """Every edge, strongest first: source, target, weight, and what else is known of it."""
    return _table(as_json(graph)["edges"], EDGE_COLUMNS)


EDGE_COLUMNS = {"source": "string", "target": "string", "weight": "float64"}
NODE_COLUMNS = {
    "id": "string",
    "kind": "string",
    "site": "string",
    "feature": "Int64",
    "position": "Int64",
    "token": "string",
    "activation": "float64",
    "effect": "float64",
    "exact": "float64",
    "label": "string",
}
"One type each: a column without any value has it too."


def _table(rows: list[dict[str, Any]], columns: Mapping[str, Any]) -> pd.DataFrame:
    """Rows as a table with these columns first; what is nested in others is JSON text."""
    plain = [
        {
            name: value if name in columns or value is None else _value(value)
            for name, value in row.items()
        }
        for row in rows
    ]
    others = sorted({name for row in plain for name in row} - set(columns))
    found = pd.DataFrame(plain, columns=[*columns, *others])
    return found.astype(dict(columns))


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

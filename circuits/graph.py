"""The feature graph: a plain `networkx.DiGraph`, its node keys, and its JSON file.

A node's key is `Node(site, feature, position)`; everything known about it is an attribute with
a fixed name, so every NetworkX algorithm runs on the graph as it is. What belongs to the graph
as a whole (metric, units, dictionaries, column tokens) is in `graph.graph`.

    node attributes   kind, token, activation, effect, exact, label
    edge attribute    weight

Others may be added (`circuits.edits.graph` does); what JSON can hold of them goes into the file.

Units and sign of `effect`, `exact` and `weight`: those of the metric; positive means that setting
the source from its clean to its patch value *raises* the metric.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx

from hooked_qwen.files import write_text_atomically
from hooked_qwen.nodes import Node

Edge = tuple[Node, Node]
"From the first node to the second."
EdgeWeights = dict[Edge, float]
SCHEMA = "feature-graph/1"
SIGNIFICANT_DIGITS = 7


def ordered(graph: nx.DiGraph) -> list[Node]:
    """The graph's nodes in the one order used everywhere: strongest effect first.

    Ties, as outputs are, come by probability where the graph has it, then by name.
    """

    def rank(node: Node) -> tuple[float, float, str]:
        data = graph.nodes[node]
        effect, probability = (float(data.get(k) or 0.0) for k in ("effect", "probability"))
        return -abs(effect), -probability, str(node)

    return sorted(graph.nodes, key=rank)


def as_json(graph: nx.DiGraph) -> dict[str, Any]:
    """The graph as plain JSON values in the `feature-graph/1` layout, in a fixed order.

    Raises `ValueError` when a number is not finite: a graph with NaN in it is a defect upstream.
    """
    nodes = [_node_record(node, graph.nodes[node]) for node in ordered(graph)]
    edges = [_edge_record(u, v, data) for u, v, data in graph.edges(data=True)]
    edges.sort(key=lambda e: (-abs(e["weight"]), e["source"], e["target"]))
    return {"schema": SCHEMA, "meta": graph.graph, "nodes": nodes, "edges": edges}


def save(graph: nx.DiGraph, path: Path) -> None:
    """Write the graph to `path`, whole or not at all."""
    write_json(as_json(graph), path)


def load(path: Path) -> nx.DiGraph:
    """Read a graph written by `save`; raises `ValueError` naming the file when it is not one."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): expected a {SCHEMA} graph") from None
    if not isinstance(record, Mapping) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, Mapping) else type(record).__name__
        raise ValueError(f"{path} has schema {found!r}, expected {SCHEMA!r}")
    graph = nx.DiGraph(**record["meta"])
    if isinstance(metric := graph.graph.get("metric"), str):
        graph.graph["metric"] = metric.replace(" ", "-")  # earlier versions wrote a space
    for fields in record["nodes"]:
        attributes = {k: v for k, v in fields.items() if k not in ("id", "site", "feature")}
        attributes.pop("position")
        graph.add_node(Node.parse(fields["id"]), **attributes)
    for edge in record["edges"]:
        source, target = Node.parse(edge["source"]), Node.parse(edge["target"])
        for end in (source, target):
            if end not in graph:
                raise ValueError(f"{path}: an edge names the node {end}, which is not in the file")
        known = {k: v for k, v in edge.items() if k not in ("source", "target")}
        graph.add_edge(source, target, **known)
    return graph


def write_json(record: Any, path: Path) -> None:
    """Write strict JSON (no NaN) atomically, in a form that diffs line by line."""
    text = json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1)
    write_text_atomically(path, text + "\n")


def rounded(value: float | None) -> float | None:
    """`value` to seven significant digits: float32 carries no more."""
    if value is None:
        return None
    if not math.isfinite(value):
        raise ValueError(f"a graph holds finite numbers only, got {value}")
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def rounded_each(values: Sequence[float]) -> list[float]:
    """The same numbers, each `rounded`: of the many of a graph's edges, a call each is slow."""
    if not all(map(math.isfinite, values)):
        found = next(value for value in values if not math.isfinite(value))
        raise ValueError(f"a graph holds finite numbers only, got {found}")
    return [float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values]


def rounded_all(value: Any) -> Any:
    """The same plain value, every number in it `rounded` that is no integer."""
    if isinstance(value, float):
        return rounded(value)
    if isinstance(value, Mapping):
        return {key: rounded_all(v) for key, v in value.items()}
    return [rounded_all(v) for v in value] if isinstance(value, list | tuple) else value


def _edge_record(source: Node, target: Node, data: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "source": str(source),
        "target": str(target),
        "weight": rounded(data["weight"]),
    }
    return record | {k: v for k, v in sorted(data.items()) if k not in record}


def _node_record(node: Node, data: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": str(node),
        "kind": data["kind"],
        "site": node.site,
        "feature": node.feature if isinstance(node.feature, int) else None,
        "position": node.position,
        "token": data.get("token"),
        "activation": rounded(data.get("activation")),
        "effect": rounded(data.get("effect")),
        "exact": rounded(data.get("exact")),
        "label": data.get("label", ""),
    }
    return record | {k: v for k, v in sorted(data.items()) if k not in record}

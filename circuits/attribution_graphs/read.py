"""From the file of an attribution graph to a graph of ours.

Edges stay as they are: what a node adds to its target's pre-activation, or to a logit.
"""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.attribution_graphs.effects import add_effects
from circuits.attribution_graphs.files import GraphRecord, finite, output_of, record_of
from circuits.attribution_graphs.names import named
from circuits.graph import Node, rounded
from circuits.render.export.viewers import OWN
from circuits.render.words import edge_support
from hooked_qwen.notices import counted

ERRORS = (KeyError, TypeError, AttributeError, ValueError)


def read_attribution_graph(path: Path) -> nx.DiGraph:
    """The graph in a file of circuit-tracer's, Neuronpedia's or our own export.

    `meta.notices` says what the file does not tell. Raises `ValueError` with one line for a file of
    another form.
    """
    record = record_of(path)
    try:
        if isinstance(record["metadata"].get(OWN), Mapping):
            return _own(record)
        return _foreign(record)
    except ERRORS as error:
        told = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"cannot read the attribution graph {path}: {told}") from None


def _own(record: GraphRecord) -> nx.DiGraph:
    """A graph that we exported, with every attribute that it had."""
    graph, nodes = nx.DiGraph(**record["metadata"][OWN]), {}
    for found in record["nodes"]:
        known = dict(found[OWN])
        nodes[found["node_id"]] = node = Node.parse(known.pop("id"))
        for name in ("site", "feature", "position"):
            known.pop(name)
        graph.add_node(node, **known)
    for link in record["links"]:
        source, target = (nodes[link[end]] for end in ("source", "target"))
        weight = edge_support(finite(link["weight"]), graph.graph)
        graph.add_edge(source, target, weight=weight)
    return graph


def _foreign(record: GraphRecord) -> nx.DiGraph:
    metadata = record["metadata"]
    tokens = [str(token) for token in metadata["prompt_tokens"]]
    names = named(record["nodes"], metadata)
    graph = nx.DiGraph()
    of = {n: found for n, found in zip(names, record["nodes"], strict=True) if n is not None}
    for node, found in of.items():
        graph.add_node(node, **_attributes(found, node, tokens))
    left_out = _add_links(graph, record, names)
    estimator = add_effects(graph, of)
    nameless = Counter(
        str(found["feature_type"])
        for found, node in zip(record["nodes"], names, strict=True)
        if node is None
    )
    outputs = [node for node in graph if node.kind == "logit"]
    graph.graph |= {
        "method": "imported",
        "metric": "logit" if outputs else "influence",
        "estimator": estimator,
        "positions": "keep",
        "edge_units": "pre-activation of the target",
        "columns": tokens,
        "n_prompts": 1,
        "prompt_lengths": [len(tokens), len(tokens)],
        "model": {"name": str(metadata.get("scan", "unknown"))},
        "dictionaries": {},
        "title": str(metadata.get("slug") or "Imported graph"),
        "notices": [_unknown(estimator, left_out, nameless, metadata)],
    }
    return graph


def _unknown(estimator: str, left_out: int, nameless: Counter[str], metadata: GraphRecord) -> str:
    """What the file does not tell, in one line."""
    edges = (
        f"; {counted(left_out, 'edge')} left out, whose source may be a feature or an error: the "
        "file calls both the same"
        if left_out
        else ""
    )
    nodes = "".join(
        f"; {counted(n, 'node')} of type {kind!r} left out, with what leads from and to them"
        for kind, n in sorted(nameless.items())
    )
    return (
        f"imported from the attribution graph of {metadata.get('scan', 'an unnamed model')!r}: its "
        "weights and dictionaries are not in the file, so it cannot be verified or ablated; "
        f"effects are {estimator}{edges}{nodes}"
    )


def _attributes(record: GraphRecord, node: Node, tokens: list[str]) -> dict[str, Any]:
    if node.position is not None and not 0 <= node.position < len(tokens):
        raise ValueError(f"{node} is at token {node.position}, and its prompt has {len(tokens)}")
    token = None if node.position is None else tokens[node.position]
    activation = record.get("activation")
    label = token if node.kind == "token" else str(record.get("clerp") or "")
    found = {
        "kind": node.kind,
        "token": token,
        "activation": None if activation is None else finite(activation),
        "effect": None,
        "exact": None,
        "label": "" if node.kind == "logit" else label,
    }
    if node.kind == "logit":
        found["probability"] = rounded(output_of(record)[1])
    return found


def _add_links(graph: nx.DiGraph, record: GraphRecord, names: list[Node | None]) -> int:
    """Add the edges; the number of those whose source the file leaves open."""
    called: dict[str, list[Node | None]] = {}
    for found, node in zip(record["nodes"], names, strict=True):
        called.setdefault(str(found["node_id"]), []).append(node)
    left_out = 0
    for link in record["links"]:
        source, target = (_named(link[end], called) for end in ("source", "target"))
        if not source or not target:
            continue
        # circuit-tracer's error of layer k and feature k of layer 0 share a name; errors have
        # no inputs, and reach only what lies above them.
        target = [node for node in target if node.kind != "error"]
        if not target:
            raise ValueError(f"an edge leads to {link['target']!r}, an error, which has no inputs")
        below = [node for node in source if _layer(node) < _layer(target[0])]
        if len(below) > 1:
            left_out += 1
            continue
        graph.add_edge((below or source)[0], target[0], weight=finite(link["weight"]))
    return left_out


def _named(end: Any, called: Mapping[str, list[Node | None]]) -> list[Node]:
    """The nodes of an edge's end; raises `ValueError` where the file has none of that name."""
    if str(end) not in called:
        raise ValueError(f"an edge names the node {end!r}, which is not in the file")
    return [node for node in called[str(end)] if node is not None]


def _layer(node: Node) -> float:
    ends = {"logit": math.inf, "embed": -1.0}
    return ends[node.site] if node.site in ends else float(node.site.rsplit(".", 1)[1])

"""Effects of an attribution graph's nodes, which its file does not have.

Where it has activations a(v), they are sums over a node's paths to the likeliest output t,

    total(u) = w(u -> t) + sum over v of w(u -> v) / a(v) * total(v)        effect(u) = -total(u)

and else the `influence` that a node has by itself, without a sign.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import networkx as nx

from circuits.attribution_graphs.files import GraphRecord, finite
from circuits.discovery.prune import influence
from circuits.graph import Node, rounded


def add_effects(graph: nx.DiGraph, of: Mapping[Node, GraphRecord]) -> str:
    """Give each node of the graph an effect; says in words what it is."""
    outputs = {n: graph.nodes[n]["probability"] for n in graph if n.kind == "logit"}
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError("its edges run in circles")
    inner = [n for n in graph if graph.in_degree(n) and graph.out_degree(n)]
    said_of = {n: record.get("influence") for n, record in of.items()}
    if outputs and all(graph.nodes[n]["activation"] for n in inner):
        target = max(outputs, key=lambda n: outputs[n])
        found = {n: -value for n, value in _totals(graph, target).items()}
        said = f"sums over the paths of its edges to the logit of {str(target.feature)!r}"
    elif all(value is not None for n, value in said_of.items() if n.kind != "logit"):
        found = _shares(said_of)
        said = "the influence in the file, without a sign"
    else:
        found = _by_edges(graph, list(outputs))
        said = "influence by its edges, without a sign"
    for node, data in graph.nodes(data=True):
        data["effect"] = None if node.kind == "logit" else rounded(found[node])
    return said


def _totals(graph: nx.DiGraph, target: Node) -> dict[Node, float]:
    """What each node adds to the target by all paths, of frozen attention and norms."""
    totals = dict.fromkeys(graph, 0.0)
    for node in reversed(list(nx.topological_sort(graph))):
        for _, later, weight in graph.out_edges(node, data="weight"):
            if later == target:
                totals[node] += weight
            elif later.kind != "logit" and graph.out_degree(later):
                totals[node] += weight / graph.nodes[later]["activation"] * totals[later]
    return totals


def _shares(cumulative: Mapping[Node, Any]) -> dict[Node, float]:
    """What each node adds to the influence of those before it, as an effect that supports."""
    known = {node: finite(value) for node, value in cumulative.items() if value is not None}
    shares, before = {}, 0.0
    for node in sorted(known, key=lambda n: (known[n], str(n))):
        shares[node] = before - known[node]
        before = known[node]
    return shares


def _by_edges(graph: nx.DiGraph, outputs: Sequence[Node]) -> dict[Node, float]:
    weights = {(u, v): weight for u, v, weight in graph.edges(data="weight")}
    each = [influence(weights, output) for output in outputs]
    return {n: -sum(e.get(n, 0.0) for e in each) for n in graph}

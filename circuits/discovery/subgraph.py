"""How much of a replacement graph's outputs a part of its features explains.

Features that are not kept count as errors: what they write joins the error of their layer and
token, with its sign. Of what is left the scores are those of `circuits.discovery.influence`:

    replacement score    influence of tokens, of that of tokens and errors
    completeness score   share of influence, over all nodes, whose inputs are not errors

Only edges of the graph count. Source: Neuronpedia's scores of pinned subgraphs.
Differs: there a feature whose layer has no error at its token is dropped; here it is an error.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

import networkx as nx

from circuits.graph import Node


@dataclass(frozen=True)
class SubgraphScores:
    """Both scores of a part of a graph, from 0 to 1."""

    replacement: float
    completeness: float


def subgraph_scores(graph: nx.DiGraph, kept: Collection[Node]) -> SubgraphScores:
    """The scores of a replacement graph where its features among `kept` alone are features.

    Raises `ValueError` for a graph of another kind, or whose outputs read nothing.
    """
    if graph.graph.get("method") != "replacement":
        raise ValueError(
            "scores of a part are of replacement graphs: find one with --method replacement"
        )
    merged = _merged(graph, set(kept))
    influence: defaultdict[Node, float] = defaultdict(float)
    for target in reversed(list(nx.lexicographical_topological_sort(merged, key=str))):
        if target.kind == "logit":
            influence[target] += float(graph.nodes[target]["influence"])
        size = sum(abs(w) for *_, w in merged.in_edges(target, data="weight"))
        for source, _, weight in merged.in_edges(target, data="weight"):
            influence[source] += influence[target] * abs(weight) / size if size else 0.0
    tokens, errors = (_of_kind(influence, kind) for kind in ("token", "error"))
    if not tokens + errors:
        raise ValueError("no token and no error leads to an output: there is nothing to score")
    return SubgraphScores(tokens / (tokens + errors), 1 - errors / sum(influence.values()))


def _merged(graph: nx.DiGraph, kept: set[Node]) -> nx.DiGraph:
    """The graph whose features that are not kept are errors."""
    merged = nx.DiGraph()
    merged.add_nodes_from(node for node in graph if node.kind == "logit")
    for source, target, weight in graph.edges(data="weight"):
        if target.kind != "logit" and target not in kept:
            continue
        if source.kind == "feature" and source not in kept:
            source = Node(source.site, "error", source.position)
        before = merged.get_edge_data(source, target, {"weight": 0.0})["weight"]
        merged.add_edge(source, target, weight=before + weight)
    return merged


def _of_kind(influence: dict[Node, float], kind: str) -> float:
    return sum((value for node, value in influence.items() if node.kind == kind), 0.0)

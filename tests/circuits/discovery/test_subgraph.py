"""Scores of a part of a replacement graph, against the dense system."""

import networkx as nx
import numpy as np
import pytest

from circuits.discovery.subgraph import subgraph_scores
from circuits.graph import Node
from tests.circuits.discovery.replaced import graph_of, rows_of, speaking, unanswered
from tests.toys import toy_prompts


@pytest.fixture(scope="module")
def graphs():
    one = rows_of(toy_prompts(n=3), [0])
    model = speaking()
    return {
        "whole": graph_of(one),
        "own answers": graph_of(unanswered(one, model), None, model),
        "pruned": graph_of(one, nodes=20),
    }


def features(graph):
    return [node for node in sorted(graph, key=str) if node.kind == "feature"]


@pytest.mark.parametrize("name", ["whole", "own answers"])
def test_with_all_features_and_edges_they_are_the_graphs(graphs, name):
    graph = graphs[name]
    found = subgraph_scores(graph, features(graph))
    assert found.replacement == pytest.approx(graph.graph["replacement_score"], rel=1e-5)
    assert found.completeness == pytest.approx(graph.graph["completeness_score"], rel=1e-5)


def dense(graph, kept):
    """Rows of features that are not kept added to their errors', then circuit-tracer's formulas."""
    nodes = sorted(graph, key=str)
    extra = {Node(n.site, "error", n.position) for n in nodes if n.kind == "feature"}
    nodes += sorted(extra - set(nodes), key=str)
    at = {node: i for i, node in enumerate(nodes)}
    whole = nx.DiGraph(graph)
    whole.add_nodes_from(nodes)
    A = nx.to_numpy_array(whole, nodelist=nodes, weight="weight").T
    for node in features(graph):
        if node not in kept:
            A[:, at[Node(node.site, "error", node.position)]] += A[:, at[node]]
            A[:, at[node]] = 0.0
            A[at[node]] = 0.0
    own = np.array([graph.nodes[n]["influence"] if n.kind == "logit" else 0.0 for n in nodes])
    size = np.abs(A)
    total = size.sum(1, keepdims=True)
    A = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
    influence = np.linalg.solve(np.eye(len(nodes)) - A.T, own)
    kind = np.array([n.kind for n in nodes])
    tokens, errors = influence[kind == "token"].sum(), influence[kind == "error"].sum()
    missed = A[:, kind == "error"].sum(1)
    return tokens / (tokens + errors), ((1 - missed) * influence).sum() / influence.sum()


@pytest.mark.parametrize("name", ["whole", "own answers", "pruned"])
@pytest.mark.parametrize("every", [1, 2, 5, 1000])
def test_features_that_are_not_kept_are_errors_of_their_layer_and_token(graphs, name, every):
    graph = graphs[name]
    kept = features(graph)[::every]
    found = subgraph_scores(graph, kept)
    expected = dense(graph, set(kept))
    assert (found.replacement, found.completeness) == pytest.approx(expected, rel=1e-9)


def test_other_graphs_are_refused(graphs):
    other = nx.DiGraph(graphs["whole"])
    other.graph["method"] = "sparse-feature"
    with pytest.raises(ValueError, match="scores of a part are of replacement graphs"):
        subgraph_scores(other, [])
    bare = nx.DiGraph(method="replacement")
    bare.add_node(Node("logit", "x"), influence=1.0)
    with pytest.raises(ValueError, match="no token and no error leads to an output"):
        subgraph_scores(bare, [])

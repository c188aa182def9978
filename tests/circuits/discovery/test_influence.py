"""Influence, both scores and effects solve the dense system, within a budget or without."""

import networkx as nx
import numpy as np
import pytest

from tests.circuits.discovery.replaced import graph_of, speaking, unanswered


def dense(graph):
    """Nodes in order, and W[t, s]."""
    nodes = sorted(graph, key=str)
    weights = nx.to_numpy_array(graph, nodelist=nodes, weight="weight").T
    return nodes, weights


def linear_solution(graph):
    """Influence, both scores and effects by solving the dense system."""
    nodes, weights = dense(graph)
    kind = np.array([n.kind for n in nodes])
    own = np.array([graph.nodes[n]["influence"] if n.kind == "logit" else 0.0 for n in nodes])
    size = np.abs(weights)
    total = size.sum(1, keepdims=True)
    A = np.divide(size, total, out=np.zeros_like(size), where=total > 0)
    influence = np.linalg.solve(np.eye(len(nodes)) - A.T, own)
    inner = np.where(kind == "logit", 0.0, influence)
    errors, tokens = inner[kind == "error"].sum(), inner[kind == "token"].sum()
    by_errors = A[:, kind == "error"].sum(1)
    completeness = ((1 - by_errors) * influence).sum() / influence.sum()
    activation = np.array([graph.nodes[n]["activation"] or 1.0 for n in nodes])
    per_unit = weights / np.where(kind == "feature", activation, 1.0)[:, None]
    totals = np.linalg.solve(np.eye(len(nodes)) - per_unit.T, own)
    return nodes, influence, tokens / (tokens + errors), completeness, totals


@pytest.mark.parametrize("answers", ["given", "own"])
def test_influence_scores_and_effects_solve_the_dense_system(one, answers):
    model = speaking()
    graph = graph_of(one if answers == "given" else unanswered(one, model), None, model)
    nodes, influence, replacement, completeness, totals = linear_solution(graph)
    assert graph.graph["replacement_score"] == pytest.approx(replacement, rel=1e-6)
    assert graph.graph["completeness_score"] == pytest.approx(completeness, rel=1e-6)
    for node, share, total in zip(nodes, influence, totals, strict=True):
        data = graph.nodes[node]
        assert data["influence"] == pytest.approx(share, rel=1e-6, abs=1e-12)
        if node.kind != "logit":
            # The reference is zero: what the node adds is taken away.
            assert data["effect"] == pytest.approx(-total, rel=1e-5, abs=1e-6)


def test_features_beyond_the_budget_count_as_errors(one):
    whole, some = graph_of(one), graph_of(one, targets=6)
    meta = some.graph
    assert meta["features_traced"] <= 6
    assert meta["features_not_traced"] > 0
    assert any("were not traced (6 are at most)" in line for line in meta["notices"])
    assert meta["replacement_score"] < whole.graph["replacement_score"]
    assert meta["completeness_score"] < whole.graph["completeness_score"]
    # The last layer's features come first, and their influence is that of the whole graph.
    for node in some:
        if node.site == "mlp_out.2":
            assert some.nodes[node]["influence"] == whole.nodes[node]["influence"]

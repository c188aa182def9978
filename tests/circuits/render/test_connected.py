"""The part of a graph that has room: connected, the strongest first, with their strongest edges."""

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.connected import circuit_of
from tests.circuits import synthetic
from tests.circuits.render.figure.test_figure_laws import unconnected


@pytest.mark.parametrize("n", range(5, 61, 5))
def test_a_figure_is_connected_at_every_size(n):
    graph = synthetic.circuit(200, seed=3)
    circuit = circuit_of(graph, n)
    assert not unconnected(circuit)
    assert len(circuit) <= n


def test_strongest_nodes_come_first():
    graph = synthetic.circuit(200)
    on_a_path = set(graph) - unconnected(graph)
    ranked = sorted(on_a_path, key=lambda n: -abs(graph.nodes[n]["effect"] or 0.0))
    assert set(ranked[:3]) <= set(circuit_of(graph, 25))


def test_each_node_keeps_its_strongest_edge_in_and_out():
    circuit = circuit_of(graph := synthetic.circuit(200), 25)
    full = nx.DiGraph(graph.subgraph(circuit))
    for node in circuit:
        for edges in (full.in_edges, full.out_edges):
            if found := sorted(edges(node, data="weight"), key=lambda e: -abs(e[2])):
                assert circuit.has_edge(*found[0][:2])


def test_without_a_token_paths_begin_where_nothing_leads():
    graph = synthetic.circuit(80)
    graph.remove_nodes_from([n for n in graph if n.kind == "token"])
    assert not unconnected(circuit_of(graph, 25))


@pytest.mark.parametrize("room", [4, 5])
def test_paths_begin_at_errors_too_where_nothing_leads_to_any(room):
    """As in a replacement model, whose errors are constants; tokens lead to the output directly."""
    graph, output = nx.DiGraph(), Node("logit", "logit")
    error, feature = Node("mlp_out.0", "error", 1), Node("mlp_out.1", 3, 1)
    token, other = Node("embed", "token", 0), Node("mlp_out.2", "error", 1)
    for node, effect in ((output, 2.0), (feature, 1.0), (error, 0.5), (token, 0.1), (other, 0.4)):
        graph.add_node(node, effect=effect)
    edges = ((error, feature), (feature, output), (token, output), (other, output))
    graph.add_weighted_edges_from((source, target, 1.0) for source, target in edges)
    strongest = [output, feature, error, other, token][:room]
    assert set(circuit_of(graph, room)) == set(strongest)
    graph.add_edge(token, other, weight=1.0)
    assert error not in circuit_of(graph, room), "errors that are led to begin no path"


def test_a_graph_that_leads_nowhere_gives_its_strongest_nodes():
    graph = synthetic.circuit(20)
    graph.remove_edges_from(list(graph.edges))
    assert len(circuit_of(graph, 8)) == 8

"""The machinery of a page: what of a graph it draws, and by what a browser knows it again."""

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.pages.circuit.document import (
    MAX_EDGES,
    MAX_NODES,
    document,
    fingerprint,
    groups_on_page,
    strongest,
)
from tests.circuits import synthetic


def page(graph, **payload):
    return document(
        graph,
        title="<b>a title</b>",
        facts=[("prompts", "<i>2</i>")],
        payload={"legend": [], "fields": [], **payload},
        describe_node=lambda node: {"group": "feature"},
        describe_edge=lambda source, target: {"group": "supports", "support": 1.0},
        cards={},
    )


def test_the_strongest_nodes_and_edges_are_drawn_and_every_output():
    graph = synthetic.circuit(MAX_NODES + 50, edges_per_node=1)
    drawn = strongest(graph)
    assert len(drawn) == MAX_NODES
    assert drawn.number_of_edges() <= MAX_EDGES
    assert {n for n in graph if n.kind == "logit"} <= set(drawn)
    left = min(abs(drawn.nodes[n]["effect"] or 0) for n in drawn if n.kind != "logit")
    assert all(abs(graph.nodes[n]["effect"] or 0) <= left for n in set(graph) - set(drawn))
    assert set(drawn.edges) <= set(graph.edges)


def test_a_browser_knows_a_graph_by_its_nodes_and_edges_alone():
    one, other = synthetic.circuit(20), synthetic.circuit(20)
    for _, data in other.nodes(data=True):
        data["label"] = "another"
    other.graph["title"] = "another"
    assert fingerprint(one) == fingerprint(other)
    other.remove_edge(*next(iter(other.edges)))
    assert fingerprint(one) != fingerprint(other)


def test_groups_are_of_features_of_the_graph():
    graph = synthetic.circuit(60)
    groups = groups_on_page(graph, synthetic.cards(graph))
    assert groups
    for group in groups:
        assert all(isinstance(node, Node) and node in graph for node in group)
        assert len(group) > 1


def test_titles_and_facts_are_text():
    html = page(synthetic.circuit(9))
    assert "&lt;b&gt;a title&lt;/b&gt;" in html
    assert "<i>2</i>" not in html


def test_a_payload_holds_finite_numbers():
    with pytest.raises(ValueError, match="not JSON compliant"):
        page(nx.DiGraph(), extra=float("nan"))

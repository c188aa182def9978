"""What a person grouped and named, in the graph and in its layout."""

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.layout import layout
from circuits.render.supernodes import places_of, with_state
from circuits.saved_state import SavedState
from tests.circuits import synthetic

GROUP = Node("group", "nouns")


@pytest.fixture
def graph():
    return synthetic.circuit(40, seed=2)


def features(graph, n=3):
    return tuple(node for node in graph if node.kind == "feature")[:n]


def test_a_group_has_the_sums_of_its_members_and_the_graph_stays_as_it_is(graph):
    members, before = features(graph), nx.to_dict_of_dicts(graph)
    found = with_state(graph, SavedState(groups={"nouns": members}))
    assert set(found) == {*graph, GROUP} - set(members)
    total = sum(graph.nodes[node]["effect"] for node in members)
    assert found.nodes[GROUP]["effect"] == pytest.approx(total)
    outside = set(graph) - set(members)
    for node in outside:
        into = sum(w for u, _, w in graph.in_edges(node, data="weight") if u in members)
        out = sum(w for _, v, w in graph.out_edges(node, data="weight") if v in members)
        for edge, weight in (((GROUP, node), into), ((node, GROUP), out)):
            assert found.has_edge(*edge) == bool(weight)
            assert not weight or found.edges[edge]["weight"] == pytest.approx(weight)
    assert nx.to_dict_of_dicts(graph) == before
    assert GROUP not in graph


def test_labels_are_the_persons_and_several_groups_stand_beside_each_other(graph):
    one, two, three, four, five = features(graph, 5)
    groups = {"nouns": (one, two), "verbs": (three, four)}
    found = with_state(graph, SavedState(groups=groups, labels={five: "mine", one: "inside"}))
    assert found.nodes[five]["label"] == "mine"
    assert graph.nodes[five]["label"] != "mine"
    assert {str(n) for n in found if n.kind == "group"} == {"group/nouns", "group/verbs"}
    between = [
        w for u, v, w in graph.edges(data="weight") if u in (one, two) and v in (three, four)
    ]
    verbs = Node("group", "verbs")
    assert found.edges.get((GROUP, verbs), {"weight": 0})["weight"] == pytest.approx(sum(between))


def test_a_group_stands_where_its_strongest_member_would(graph):
    members = features(graph)
    for effects, strongest in (((1.0, -3.0, 2.0), 1), ((0.5, None, -0.1), 0)):
        for node, effect in zip(members, effects, strict=True):
            graph.nodes[node]["effect"] = effect
        circuit = with_state(graph, SavedState(groups={"nouns": members}))
        found = places_of(circuit)
        alone = layout(nx.relabel_nodes(circuit, {GROUP: members[strongest]}))
        assert found.places[GROUP] == alone.places[members[strongest]]
        assert found.places.keys() == set(circuit)
        rest = set(circuit) - {GROUP}
        assert {n: found.places[n] for n in rest} == {n: alone.places[n] for n in rest}
        parts = ("bands", "columns", "width", "height")
        assert all(getattr(found, part) == getattr(alone, part) for part in parts)


def test_of_members_of_one_effect_the_last_by_name_is_where_a_group_stands(graph):
    members = features(graph)
    for node in members:
        graph.nodes[node]["effect"] = -1.0
    for some in (members, members[::-1]):
        found = with_state(graph, SavedState(groups={"nouns": some}))
        assert found.nodes[GROUP]["stands_at"] == max(map(str, members))


def test_a_group_of_a_graph_that_says_no_place_stands_at_its_first_member(graph):
    members = features(graph)
    circuit = with_state(graph, SavedState(groups={"nouns": members}))
    del circuit.nodes[GROUP]["stands_at"]
    alone = layout(nx.relabel_nodes(circuit, {GROUP: members[0]}))
    assert places_of(circuit).places[GROUP] == alone.places[members[0]]


def test_without_groups_the_layout_is_that_of_the_graph(graph):
    assert places_of(graph) == layout(graph)
    assert places_of(nx.DiGraph()) == layout(nx.DiGraph())

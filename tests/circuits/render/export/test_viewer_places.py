"""Where nodes stand in a viewer: ids and numbers of no two are the same, layers as they are."""

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.export.viewer_places import ERROR, FEATURE, PER_SITE, Places
from tests.circuits import synthetic

OUTPUT = Node("logit", " are")


def graph_of(*nodes, **meta):
    graph = nx.DiGraph(**meta)
    graph.add_nodes_from(nodes)
    return graph


@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_no_two_nodes_have_one_id(positions):
    graph = synthetic.circuit(300, positions=positions, seed=4)
    places = Places.of(graph, 11)
    fields = [places.fields(node) for node in graph]
    assert len({one["node_id"] for one in fields}) == len(graph)
    assert all(one["jsNodeId"] == one["node_id"] for one in fields)
    of_features = [places.number(n) for n in graph if n.kind == "feature"]
    different = {(n.site, n.feature) for n in graph if n.kind == "feature"}
    assert len(set(of_features)) == len(different)


def test_each_kind_of_node_has_its_type_layer_and_column():
    feature, error = Node("mlp_out.2", 7, 1), Node("resid_post.3", "error", 0)
    token = Node("embed", "token", 1)
    places = Places.of(graph_of(feature, error, token, OUTPUT), 5)
    kinds = ("feature_type", "layer", "ctx_idx")
    assert [places.fields(feature)[k] for k in kinds] == [FEATURE, "2", 1]
    assert [places.fields(error)[k] for k in kinds] == [ERROR, "3", 0]
    assert [places.fields(token)[k] for k in kinds] == ["embedding", "E", 1]
    assert [places.fields(OUTPUT)[k] for k in kinds] == ["logit", "4", 4], "above all, at the end"
    assert places.fields(error)["feature"] < 0
    assert [places.fields(n)["ctx_idx"] for n in (feature._replace(position=None),)] == [0]


def test_layers_are_counted_from_1_where_all_nodes_are_of_layer_0():
    feature = Node("mlp_out.0", 7, 1)
    places = Places.of(graph_of(feature, OUTPUT), 2)
    assert (places.fields(feature)["layer"], places.fields(OUTPUT)["layer"]) == ("1", "2")


def test_a_feature_has_one_number_in_all_graphs_of_its_dictionaries():
    """The sites of a graph, and those of its dictionaries, count in the order of computation."""
    one, other = Node("mlp_out.1", 7, 1), Node("attn_out.0", 3, 1)
    known = {"attn_out.0": {}, "mlp_out.1": {}, "resid_post.1": {}}
    numbers = {
        Places.of(graph, 2).number(one)
        for graph in (graph_of(one, dictionaries=known), graph_of(one, other, dictionaries=known))
    }
    assert numbers == {PER_SITE + 7}
    assert Places.of(graph_of(one), 2).number(one) == 7
    group = Node("group", "nouns")
    assert Places.of(graph_of(one, group), 2).number(group) // PER_SITE in (0, 1)

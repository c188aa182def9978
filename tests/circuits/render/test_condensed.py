"""Few boxes of long paths: what is kept, and edges that stand for what is left out."""

from itertools import pairwise

import networkx as nx
import pytest

from circuits.graph import Node, ordered
from circuits.render.condensed import condensed
from tests.circuits import synthetic

TOKEN, OTHER, OUTPUT = Node("embed", "token", 0), Node("embed", "token", 1), Node("logit", " are")


def feature(layer, number=0):
    return Node(f"mlp_out.{layer}", number, 1)


def graph_of(*edges, units="logit-difference", **effects):
    """Of (source, target, weight); every node has effect 1 where nothing else is said."""
    graph = nx.DiGraph(edge_units=units)
    for source, target, weight in edges:
        graph.add_edge(source, target, weight=weight)
    for node in graph:
        effect = None if node.kind == "logit" else effects.get(str(node.site).replace(".", "_"), 1)
        graph.nodes[node].update(kind=node.kind, effect=effect)
    return graph


def line(*weights, units="logit-difference"):
    nodes = [TOKEN, *(feature(i) for i in range(len(weights) - 1)), OUTPUT]
    edges = [(*ends, w) for ends, w in zip(pairwise(nodes), weights, strict=True)]
    return graph_of(*edges, units=units)


@pytest.mark.parametrize(
    ("units", "weight"), [("logit-difference", 2.0), ("pre-activation of the target", -2.0)]
)
def test_an_edge_is_as_weak_as_its_weakest_and_has_the_sign_of_the_first_or_of_all(units, weight):
    graph = line(5.0, -2.0, 3.0, -4.0, -7.0, units=units)
    found = condensed(graph, [], 2)
    assert set(found) == {TOKEN, OUTPUT}
    assert found.edges[TOKEN, OUTPUT] == {
        "weight": weight,
        "via": (feature(0), feature(1), feature(2), feature(3)),
    }
    opposing = condensed(line(-5.0, -2.0, 3.0, units=units), [], 2).edges[TOKEN, OUTPUT]["weight"]
    assert opposing == (-2.0 if units == "logit-difference" else 2.0)


def test_a_path_is_cut_where_its_nodes_are_kept():
    graph = line(1.0, 2.0, 3.0, 4.0, 5.0)
    found = condensed(graph, [feature(1), feature(2)], 4)
    assert set(found) == {TOKEN, feature(1), feature(2), OUTPUT}
    via = {(u, v): data.get("via") for u, v, data in found.edges(data=True)}
    assert via == {
        (TOKEN, feature(1)): (feature(0),),
        (feature(1), feature(2)): None,
        (feature(2), OUTPUT): (feature(3),),
    }
    assert found.edges[feature(1), feature(2)]["weight"] == 3.0


def test_an_edge_of_the_graph_is_not_replaced_by_a_stretch():
    graph = line(1.0, 2.0, 3.0)
    graph.add_edge(TOKEN, OUTPUT, weight=0.5)
    found = condensed(graph, [], 2)
    assert found.edges[TOKEN, OUTPUT] == {"weight": 0.5}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("room", [2, 5, 12])
def test_every_node_is_on_a_path_and_edges_stand_for_paths_of_the_graph(seed, room):
    graph = synthetic.circuit(120, seed=seed)
    found = condensed(graph, ordered(graph), room)
    assert 2 <= len(found) <= room
    tokens = [n for n in found if n.kind == "token"]
    after = set(tokens).union(*(nx.descendants(found, n) for n in tokens))
    before = {OUTPUT, *nx.ancestors(found, OUTPUT)}
    assert set(found) == after & before
    kept = set(found)
    for source, target, data in found.edges(data=True):
        path = [source, *data.get("via", ()), target]
        assert nx.is_path(graph, path)
        assert not kept & set(path[1:-1])
        assert abs(data["weight"]) == min(abs(graph.edges[e]["weight"]) for e in pairwise(path))


def test_first_come_those_before_others_and_what_is_on_no_path_is_left_out():
    aside = feature(9, 9)
    graph = line(1.0, 2.0, 3.0, 4.0)
    graph.add_node(aside, kind="feature", effect=99.0)
    found = condensed(graph, [aside, feature(2), feature(0), feature(1)], 3)
    assert set(found) == {TOKEN, feature(2), OUTPUT}


def test_an_output_that_the_kept_token_does_not_reach_is_left_out():
    """With room for two of each end, those that come first decide."""
    is_, reached = Node("logit", " is"), feature(0)
    graph = graph_of((TOKEN, reached, 1.0), (reached, OUTPUT, 1.0), (OTHER, is_, 1.0))
    some = condensed(graph, [OUTPUT, is_, TOKEN, reached], 8)
    assert set(some) == {TOKEN, reached, OUTPUT}
    both = condensed(graph, [OUTPUT, is_, TOKEN, OTHER, reached], 8)
    assert set(both) == {TOKEN, OTHER, reached, OUTPUT, is_}


def test_so_many_sites_at_most_those_of_the_largest_summed_effect():
    """0.6 twice in layer 1 is more than 1 in layer 0; what is asked for is of none of them."""
    one, more = feature(1), feature(1, 1)
    edges = [(TOKEN, feature(0), 1.0), (feature(0), one, 1.0), (feature(0), more, 1.0)]
    edges += [(one, feature(2), 1.0), (more, feature(2), 1.0), (feature(2), OUTPUT, 1.0)]
    graph = graph_of(*edges, mlp_out_1=-0.6, mlp_out_2=0.1)
    every = [feature(0), one, more, feature(2)]
    assert set(condensed(graph, every, 9)) == {TOKEN, OUTPUT, *every}
    assert set(condensed(graph, every, 9, sites=1)) == {TOKEN, OUTPUT, one, more}
    assert set(condensed(graph, every, 9, sites=2)) == {TOKEN, OUTPUT, feature(0), one, more}
    always = condensed(graph, every, 9, sites=1, always={feature(2)})
    assert set(always) == {TOKEN, OUTPUT, one, more, feature(2)}
    strong = condensed(graph, every, 9, sites=1, always={feature(0)})
    assert set(strong) == {TOKEN, OUTPUT, feature(0), one, more}
    assert set(condensed(graph, every, 9, sites=0)) == {TOKEN, OUTPUT}


def test_of_sites_of_one_effect_the_first_by_name_stays():
    graph = line(1.0, 1.0, 1.0)
    assert set(condensed(graph, [feature(1), feature(0)], 9, sites=1)) == {
        TOKEN,
        OUTPUT,
        feature(0),
    }


def test_what_stands_beside_is_added_beyond_the_room_and_without_an_edge():
    ablated = feature(5, 7)
    graph = line(1.0, 2.0, 3.0)
    graph.add_node(ablated, kind="feature", effect=0.0, ablated="zero")
    found = condensed(graph, [], 2, beside=[ablated])
    assert set(found) == {TOKEN, OUTPUT, ablated}
    assert not found.degree(ablated)
    assert found.nodes[ablated] == graph.nodes[ablated]

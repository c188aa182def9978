"""Node keys and the graph file."""

import json

import networkx as nx
import pytest

from circuits.graph import Node, as_json, load, rounded_each, save


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("mlp_out.3/812@5", Node("mlp_out.3", 812, 5)),
        ("mlp_out.3/812", Node("mlp_out.3", 812, None)),
        ("mlp_out.3/error@5", Node("mlp_out.3", "error", 5)),
        ("resid_post.0/error", Node("resid_post.0", "error", None)),
        ("token@5", Node("embed", "token", 5)),
        ("token", Node("embed", "token", None)),
        ("logit/ are", Node("logit", " are", None)),
        ("logit/a@3/b", Node("logit", "a@3/b", None)),
    ],
)
def test_node_names_go_both_ways(text, node):
    assert Node.parse(text) == node
    assert str(node) == text


@pytest.mark.parametrize("text", ["", "mlp_out.3", "mlp_out.3/x", "mlp_out.3/1@y", "a/b/c"])
def test_a_name_that_is_no_node_is_refused(text):
    with pytest.raises(ValueError, match="write SITE/FEATURE"):
        Node.parse(text)


def small_graph() -> nx.DiGraph:
    graph = nx.DiGraph(metric="logit-difference")
    a, b, out = Node("embed", "token", 1), Node("mlp_out.0", 3, 1), Node("logit", " are")
    for node, effect in ((a, -0.5), (b, 1 / 3), (out, -2.0)):
        graph.add_node(node, kind=node.kind, effect=effect, exact=None, activation=1.0, label="x")
    graph.add_edge(a, b, weight=0.25)
    graph.add_edge(b, out, weight=-1e-9)
    return graph


def test_a_graph_survives_its_file(tmp_path):
    graph = small_graph()
    save(graph, tmp_path / "graph.json")
    again = load(tmp_path / "graph.json")
    assert set(again) == set(graph)
    assert again.graph == graph.graph
    assert again.edges[Node("embed", "token", 1), Node("mlp_out.0", 3, 1)]["weight"] == 0.25
    assert as_json(again) == as_json(graph)


def test_the_file_has_the_fields_of_the_contract_in_a_fixed_order(tmp_path):
    save(small_graph(), tmp_path / "graph.json")
    record = json.loads((tmp_path / "graph.json").read_text())
    assert record["schema"] == "feature-graph/1"
    assert [n["id"] for n in record["nodes"]] == ["logit/ are", "token@1", "mlp_out.0/3@1"]
    contract = {"id", "kind", "site", "feature", "position", "token"}
    contract |= {"activation", "effect", "exact", "label"}
    assert all(contract <= node.keys() for node in record["nodes"])
    assert all(edge.keys() == {"source", "target", "weight"} for edge in record["edges"])


def test_what_is_not_finite_is_never_written(tmp_path):
    graph = small_graph()
    graph.nodes[Node("mlp_out.0", 3, 1)]["effect"] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        save(graph, tmp_path / "graph.json")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="finite numbers only, got inf"):
        rounded_each([0.5, float("inf")])


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "has schema 'list'"), ('{"schema": "other"}', "'other'")],
)
def test_another_file_is_refused_by_name(tmp_path, text, message):
    (tmp_path / "graph.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "graph.json")


def test_an_edge_to_nowhere_is_refused(tmp_path):
    record = as_json(small_graph())
    record["edges"][0]["target"] = "mlp_out.0/99@1"
    (tmp_path / "graph.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="mlp_out.0/99@1, which is not in the file"):
        load(tmp_path / "graph.json")

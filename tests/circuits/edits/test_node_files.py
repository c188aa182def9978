"""Files of nodes in every form, and groups of a page."""

import json

import networkx as nx
import pytest

from circuits import graph as graphs
from circuits.edits.node_files import read_nodes
from circuits.graph import Node
from tests.circuits.synthetic import circuit as made_up


def test_files_of_nodes_in_every_form(tmp_path):
    graph = made_up(20)
    inner = {n for n in graph if n.kind in ("feature", "error", "token")}
    forms = {
        "list.json": json.dumps([str(n) for n in inner]),
        "keys.json": json.dumps([list(n) for n in inner]),
        "link.json": json.dumps(nx.node_link_data(graph)),
        "groups.json": json.dumps({"groups": {"all of it": [str(n) for n in inner]}}),
    }
    for name, text in forms.items():
        (tmp_path / name).write_text(text)
        assert {n for n in read_nodes(tmp_path / name) if n.kind != "logit"} == inner, name
    graphs.save(graph, tmp_path / "graph.json")
    from circuits.render.export.export import write

    for name in ("graph.json", "graph.graphml", "graph.gexf"):
        if not name.endswith("json"):
            write(graph, tmp_path / name)
        assert set(read_nodes(tmp_path / name)) == set(graph), name


def test_groups_of_a_page_are_asked_for_by_name(tmp_path):
    path = tmp_path / "state.json"
    path.write_text(json.dumps({"groups": {"plural": ["mlp_out.0/5"], "verbs": ["mlp_out.0/7"]}}))
    assert read_nodes(path, ["verbs"]) == (Node("mlp_out.0", 7),)
    assert len(read_nodes(path, ["verbs", "plural"])) == 2
    with pytest.raises(ValueError, match="has 2 groups, 'plural', 'verbs': say which"):
        read_nodes(path)
    with pytest.raises(ValueError, match="no group 'nouns': its groups are 'plural', 'verbs'"):
        read_nodes(path, ["nouns"])
    for text in ("{", "{}", '{"groups": {"a": "b"}}', '["token"'):
        path.write_text(text)
        with pytest.raises(ValueError, match="cannot read nodes from") as raised:
            read_nodes(path)
        assert "\n" not in str(raised.value)

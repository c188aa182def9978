"""Graphs edited in NetworkX: removed, merged, labelled, saved, read, taken apart, and checked."""

import json

import networkx as nx
import pytest

from circuits import graph as graphs
from circuits.edits.graph import expanded, labelled, merged, removed
from circuits.edits.node_files import read_graph, read_nodes
from circuits.graph import Node
from circuits.render.export.export import write
from tests.circuits.conftest import call
from tests.circuits.synthetic import circuit


def weights(graph):
    return {(u, v): round(w, 9) for u, v, w in graph.edges(data="weight")}


def some(graph, n=4):
    return [node for node in graph if node.kind == "feature"][:n]


def test_a_merged_node_keeps_what_it_stands_for_and_sums_its_edges():
    graph = circuit(40, edges_per_node=6)
    nodes = some(graph)
    both = merged(graph, nodes, "plural")
    group = Node("group", "plural")
    assert group.kind == "group"
    assert Node.parse(str(group)) == group
    assert both.nodes[group]["effect"] == pytest.approx(
        sum(graph.nodes[n]["effect"] for n in nodes)
    )
    assert set(both.nodes[group]["members"]) == set(map(str, nodes))
    for other in set(graph) - set(nodes):
        out = [w for u, _, w in graph.in_edges(other, data="weight") if u in nodes]
        assert both.has_edge(group, other) == bool(out)
        if out:
            assert both.edges[group, other]["weight"] == pytest.approx(sum(out))
    back = expanded(both)
    assert set(back) == set(graph)
    assert weights(back) == weights(graph)


def test_groups_of_groups_and_what_was_removed_since(tmp_path):
    graph = circuit(40, edges_per_node=6)
    a, b, c, d = some(graph)
    both = merged(merged(graph, [a, b], "one"), [Node("group", "one"), c], "two")
    assert weights(expanded(both)) == weights(graph)
    less = removed(both, [d])
    assert weights(expanded(less)) == weights(removed(graph, [d]))
    assert set(read_all(less, tmp_path)) == set(removed(graph, [d]))
    gone = next(iter(both.out_edges(Node("group", "two"))))
    cut = expanded(removed(both, edges=[gone]))
    assert set(weights(graph)) - set(weights(cut)) == {
        (m, gone[1]) for m in (a, b, c) if graph.has_edge(m, gone[1])
    }


def read_all(graph, folder):
    graphs.save(graph, folder / "graph.json")
    found = read_nodes(folder / "graph.json", ["two"])
    return (*found, *(n for n in graph if n.kind != "group"))


def test_an_edge_drawn_by_hand_to_a_group_stands_for_one_to_every_member():
    graph = circuit(20)
    a, b, *_ = some(graph)
    both = merged(graph, [a, b], "two")
    out = Node("logit", " are")
    if both.has_edge(Node("group", "two"), out):
        both.remove_edge(Node("group", "two"), out)
    both.add_edge(Node("group", "two"), out, weight=1.0)
    assert {(a, out), (b, out)} <= set(expanded(both).edges)


def test_labels_and_all_else_survive_every_file(tmp_path):
    graph = circuit(20, edges_per_node=5)
    a, b, c, _ = some(graph)
    made = labelled(merged(graph, [a, b], "two"), c, "verbs")
    edge = next(iter(made.edges))
    made = labelled(made, edge, "the one that counts")
    graphs.save(made, tmp_path / "edited.json")
    write(made, tmp_path / "edited.graphml")
    write(made, tmp_path / "edited.gexf")
    (tmp_path / "link.json").write_text(json.dumps(nx.node_link_data(made)))
    for name in ("edited.json", "edited.graphml", "edited.gexf", "link.json"):
        found = read_graph(tmp_path / name)
        assert set(found) == set(made), name
        assert found.nodes[c]["label"] == "verbs", name
        assert found.edges[edge]["label"] == "the one that counts", name
        assert set(expanded(found)) == set(graph), name
        assert set(expanded(found).edges) == set(graph.edges), name


def test_what_is_not_there_is_refused(tmp_path):
    graph = circuit(10)
    a, b = some(graph, 2)
    absent, out = Node("mlp_out.0", 5000), Node("logit", " are")
    for attempt, message in (
        (lambda: removed(graph, [absent]), "no node mlp_out.0/5000"),
        (lambda: removed(graph, edges=[(out, a)]), "no edge logit/ are -> "),
        (lambda: merged(graph, [a, absent], "x"), "no node mlp_out.0/5000"),
        (lambda: merged(graph, [a, out], "x"), "expected features, errors or tokens"),
        (lambda: merged(merged(graph, [a], "x"), [b], "x"), "a name that no group has"),
        (lambda: labelled(graph, (out, a), "x"), "no edge logit/ are -> "),
        (lambda: read_graph(tmp_path), "cannot read a graph from"),
    ):
        with pytest.raises(ValueError, match=message):
            attempt()
    (tmp_path / "plain.json").write_text(json.dumps(nx.node_link_data(nx.Graph([("a", "b")]))))
    with pytest.raises(ValueError, match="cannot read a graph from"):
        read_graph(tmp_path / "plain.json")


def test_the_command_checks_a_graph_edited_by_hand(tmp_path, fails):
    pair = {"clean": "The keys near the cabinet", "patch": "The key near the cabinet",
            "answer": " sit", "wrong": " sits"}  # fmt: skip
    (tmp_path / "prompts.jsonl").write_text(json.dumps(pair) + "\n")
    (tmp_path / "few.txt").write_text("The keys near the cabinet sit. " * 40)
    run = tmp_path / "run"
    done = call("discover", tmp_path / "prompts.jsonl", "--nodes", 8, "--estimator", "patching",
                "--text", tmp_path / "few.txt", "--quiet", "--out", run)  # fmt: skip
    assert done.exit_code == 0, done.output
    graph = graphs.load(run / "graph.json")
    graphs.save(removed(graph, edges=list(graph.edges)[:2]), tmp_path / "edited.json")
    command = (
        "verify",
        run,
        "--graph",
        tmp_path / "edited.json",
        "--level",
        "quick",
        "--to",
        "patch",
    )
    done = call(*command)
    assert done.exit_code == 0, done.output
    assert "nodes and edges" in done.output
    record = json.loads((run / "edited" / "edited" / "verification.json").read_text())
    assert record["edges"] == graph.number_of_edges() - 2
    assert "--force" in fails(*command, "--seed", 7)
    assert "edited circuit" in fails("discover", tmp_path / "prompts.jsonl", "--nodes", 9,
                                     "--out", run)  # fmt: skip

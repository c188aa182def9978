"""Two graphs are matched by site, feature and position from the end."""

import json

import networkx as nx
import pytest

from circuits import graph as graphs
from circuits.comparison import differences, different_origins
from circuits.graph import Node
from circuits.render.pages.circuit.compare_page import comparison_page
from circuits.runs.compare_runs import compare_runs
from hooked_qwen.notices import Notice
from tests.circuits import synthetic


def graph(effects, columns=None):
    built = nx.DiGraph(columns=columns, metric="logit-difference", positions="keep")
    for name, effect in effects.items():
        node = Node.parse(name)
        built.add_node(node, kind=node.kind, token=None, activation=None, effect=effect,
                       exact=None, label="")  # fmt: skip
    return built


def test_each_node_has_one_status_and_the_largest_change_leads():
    a = graph({"mlp_out.1/1@0": -1.0, "mlp_out.1/2@0": 0.5, "mlp_out.1/3@1": 0.2}, ["x", "y"])
    b = graph({"mlp_out.1/1@0": -1.05, "mlp_out.1/3@1": 0.9, "mlp_out.1/4@1": 0.1}, ["x", "y"])
    rows = {str(row.node): (row.status, pytest.approx(row.change)) for row in differences(a, b)}
    assert rows == {
        "mlp_out.1/3@1": ("changed", 0.7),
        "mlp_out.1/2@0": ("only-a", -0.5),
        "mlp_out.1/4@1": ("only-b", 0.1),
        "mlp_out.1/1@0": ("same", -0.05),
    }
    assert list(rows) == ["mlp_out.1/3@1", "mlp_out.1/2@0", "mlp_out.1/4@1", "mlp_out.1/1@0"]


def test_positions_count_from_the_end():
    a = graph({"mlp_out.1/1@1": -1.0}, ["The", "keys"])
    b = graph({"mlp_out.1/1@3": -1.0, "mlp_out.1/1@1": -1.0}, ["Oh", "the", "old", "keys"])
    status = {str(row.node): row.status for row in differences(a, b)}
    assert status == {"mlp_out.1/1@3": "same", "mlp_out.1/1@1": "only-b"}


def test_a_graph_equals_itself():
    same = synthetic.circuit(80)
    assert {(row.status, row.change) for row in differences(same, same)} == {("same", 0.0)}


def test_swapping_the_graphs_flips_every_change():
    a, b = synthetic.circuit(50, seed=1), synthetic.circuit(50, seed=2)
    forth = {(row.a, row.b): row.change for row in differences(a, b)}
    back = {(row.b, row.a): -row.change for row in differences(b, a)}
    assert forth == back


def test_a_changed_sign_is_a_change():
    (row,) = differences(graph({"mlp_out.1/1": 0.3}), graph({"mlp_out.1/1": -0.3}))
    assert row.status == "changed"


def of(model, dictionaries):
    built = graph({"mlp_out.1/1": 0.3, "mlp_out.2/5": 0.2, "token": 0.1})
    hashes = {site: {"hash": found} for site, found in dictionaries.items()}
    built.graph |= {"model": {"name": "A", "hash": model}, "dictionaries": hashes}
    return built


def test_runs_of_two_models_are_compared_and_the_page_says_so():
    a, b = of("1", {"mlp_out.1": "x"}), of("2", {"mlp_out.1": "x"})
    assert different_origins(a, of("1", {})) == []
    assert different_origins(a, graph({})) == [], "older graphs have no hash"
    (line,) = different_origins(a, b)
    assert line.startswith("two models, A (1) and A (2)")
    rows = differences(a, b)
    assert {row.status for row in rows} == {"same"}
    assert line in comparison_page(a, b, rows, names=("a", "b"))


def test_comparing_runs_of_two_models_is_said_where_it_is_asked_for(tmp_path):
    for name, model in (("a", "1"), ("b", "2")):
        (tmp_path / name).mkdir()
        graphs.save(of(model, {"mlp_out.1": "x"}), tmp_path / name / "graph.json")
    with pytest.warns(Notice, match=r"two models, A \(1\) and A \(2\)"):
        compare_runs(tmp_path / "a", tmp_path / "b", tmp_path / "page.html")


def test_features_of_different_dictionaries_are_different_features():
    a = of("1", {"mlp_out.1": "x", "mlp_out.2": "x"})
    (line,) = different_origins(a, of("1", {"mlp_out.1": "x", "mlp_out.2": "y"}))
    assert line.startswith("two dictionaries of mlp_out.2: features of one number")
    with pytest.raises(ValueError, match="the graphs have no dictionary in common"):
        differences(a, of("1", {"mlp_out.1": "z"}))


def test_a_missing_effect_counts_as_none():
    (row,) = differences(graph({"logit/ are": None}), graph({"logit/ are": None}))
    assert (row.status, row.change, row.effect_a) == ("same", 0.0, None)


def test_kept_and_summed_positions_do_not_compare():
    with pytest.raises(ValueError, match="the same --positions"):
        differences(synthetic.circuit(9), synthetic.circuit(9, positions="sum"))


def test_the_page_holds_every_node_with_its_status():
    a, b = synthetic.circuit(40, seed=1), synthetic.circuit(40, seed=2)
    rows = differences(a, b)
    html = comparison_page(a, b, rows, names=("base", "<b>edited</b>"))
    nodes = json.loads(html.split('id="data-nodes">')[1].split("</script>")[0])
    assert sorted(n["group"] for n in nodes) == sorted(row.status for row in rows)
    assert "<b>edited</b>" not in html

"""Graphs found in Python: labels without text, and files by NetworkX's own writers."""

import json
import re

import networkx as nx
import pandas as pd
import pytest

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.features.card import promoted_labels
from circuits.graph import Node, as_json
from circuits.render.export.export import (
    dot,
    edges_table,
    export_tables,
    nodes_table,
    portable,
    write,
)
from circuits.render.exporters import Drawn
from tests.circuits.discovery.replaced import graph_of as replacement_graph
from tests.circuits.discovery.replaced import rows_of
from tests.circuits.synthetic import circuit
from tests.toys import full_suite, toy, toy_prompts, toy_tokenizer


@pytest.fixture(scope="module")
def case():
    return toy(), full_suite(), toy_prompts(n=3)


@pytest.fixture(scope="module")
def found(case):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=15)
    return discover(Analysis.of(model, suite, prompts, config)).graph


def test_features_found_in_python_have_labels(case, found):
    """The tokens that a feature promotes most, by the direct path."""
    model, suite, _ = case
    labels = {n: data["label"] for n, data in found.nodes(data=True)}
    assert all(labels.values())
    features = [n for n in found if n.kind == "feature"]
    assert all(labels[n] == f"{n.site}/{n.feature}" for n in features)
    model.tokenizer = toy_tokenizer()
    try:
        said = promoted_labels(model, suite, found)
    finally:
        model.tokenizer = None
    assert set(said) == set(features)
    node = features[0]
    dictionary = next(d for site, d in suite.items() if str(site) == node.site)
    scores = (dictionary.W_dec[node.feature] * model.ln_final.weight) @ model.W_U
    best = toy_tokenizer().decode([int(scores.argmax())]).strip()
    assert said[node].startswith(f"→ {best}")


@pytest.mark.parametrize("suffix", ["gexf", "graphml"])
@pytest.mark.parametrize("which", ["found", "made up"])
def test_networkx_writes_and_reads_a_graph_back(found, tmp_path, suffix, which):
    graph = found if which == "found" else circuit(40)
    graph.add_node(Node("logit", "\x07bell"), kind="logit", token="\x00", activation=None,
                   effect=None, exact=None, label="a\x1bb")  # fmt: skip
    path = tmp_path / f"graph.{suffix}"
    writer, reader = getattr(nx, f"write_{suffix}"), getattr(nx, f"read_{suffix}")
    writer(portable(graph), path)
    back = reader(path)
    graph.remove_node(Node("logit", "\x07bell"))
    assert set(map(str, graph)) <= set(back)
    assert back.number_of_edges() == graph.number_of_edges()
    for node, data in graph.nodes(data=True):
        there = back.nodes[str(node)]
        assert there["site"] == node.site
        assert there.get("effect") == data["effect"]
        assert there.get("position") == node.position
        assert there.get("exact") == data["exact"]
    for source, target, weight in graph.edges(data="weight"):
        assert back[str(source)][str(target)]["weight"] == weight
    json.dumps(as_json(graph))
    write(graph, path)
    assert reader(path).number_of_nodes() == graph.number_of_nodes()


HOSTILE = 'a "quote", a \\ backslash\\" \n->; ] } <b> \u202e 复 \\N'


def unquoted(text: str) -> str:
    """What Graphviz reads a string in quotes as: `\\"` first, then what a backslash escapes."""
    return re.sub(r"\\(.)", r"\1", text)


def test_dot_says_what_the_graph_does_whatever_its_labels_hold():
    graph = circuit(40)
    for _, data in graph.nodes(data=True):
        data["label"] = HOSTILE
    graph.add_node(Node("logit", HOSTILE), kind="logit", token=None, activation=None, effect=None,
                   exact=None, label="")  # fmt: skip
    lines = dot(graph).splitlines()
    string = r'"((?:[^"\\]|\\.)*)"'
    # With its strings taken out nothing is left but the grammar of this file.
    grammar = (
        r"  \S \[label=\S(, support=[-.\de]+)?, shape=(box|ellipse|diamond)(, style=dashed)?\];"
    )
    bare = [re.sub(string, "S", line) for line in lines]
    nodes = [re.findall(string, x) for x, b in zip(lines, bare, strict=True)
             if re.fullmatch(grammar.replace("\\S", "S"), b)]  # fmt: skip
    assert len(nodes) == len(graph)
    assert {unquoted(name) for name, _ in nodes} >= {str(n) for n in graph if n.kind != "logit"}
    edges = [
        x
        for x, b in zip(lines, bare, strict=True)
        if re.fullmatch(r"  S -> S \[support=[-.\de]+, penwidth=[.\d]+(, style=dashed)?\];", b)
    ]
    assert len(edges) == graph.number_of_edges()
    ranks = [b for b in bare if b.startswith("  { rank=same;")]
    assert len(lines) == len(nodes) + len(edges) + len(ranks) + 3
    said = {
        tuple(map(unquoted, re.findall(string, x))): float(x.split("support=")[1].split(",")[0])
        for x in edges
    }
    for source, target, weight in graph.edges(data="weight"):
        if "logit" not in (source.site, target.site):
            assert said[str(source), str(target)] == pytest.approx(-weight, rel=1e-6)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_tables_read_back_are_the_graph(tmp_path, suffix, positions):
    graph = circuit(40, positions=positions)
    next(iter(graph.nodes(data=True)))[1]["label"] = HOSTILE
    drawn = Drawn(folder=tmp_path, graph=graph, verification=None, nodes=25)
    paths = export_tables(drawn, suffix)
    assert [path.name for path in paths] == [f"nodes.{suffix}", f"edges.{suffix}"]
    read = pd.read_parquet if suffix == "parquet" else pd.read_csv
    nodes, edges = map(read, paths)
    record = as_json(graph)
    for table, rows in ((nodes, record["nodes"]), (edges, record["edges"])):
        assert len(table) == len(rows)
        for name in rows[0]:
            for found, row in zip(table[name], rows, strict=True):
                expected = row[name]
                if expected is None or (suffix == "csv" and expected == ""):
                    assert pd.isna(found)
                elif isinstance(expected, str):
                    assert found == expected
                else:
                    assert found == pytest.approx(expected, rel=1e-12)
    if suffix == "parquet":
        assert [str(t) for t in nodes[["feature", "position"]].dtypes] == ["Int64", "Int64"]
        pd.testing.assert_frame_equal(nodes, nodes_table(graph))
        pd.testing.assert_frame_equal(edges, edges_table(graph))


def test_tables_hold_what_else_is_known_of_a_node():
    graph = circuit(10)
    node = next(iter(graph))
    graph.nodes[node]["members"] = ["mlp_out.1/3@2"]
    table = nodes_table(graph).set_index("id")
    assert json.loads(table.loc[str(node), "members"]) == ["mlp_out.1/3@2"]
    assert table["members"].isna().sum() == len(graph) - 1


def test_files_of_a_replacement_graph_keep_its_numbers_and_its_heads(tmp_path):
    graph = replacement_graph(rows_of(toy_prompts(n=3), [0]), nodes=12)
    for suffix, read in (("graphml", nx.read_graphml), ("gexf", nx.read_gexf)):
        write(graph, tmp_path / f"graph.{suffix}")
        back = read(tmp_path / f"graph.{suffix}")
        for node, data in graph.nodes(data=True):
            found = back.nodes[str(node)]
            for name in ("influence", "pre_activation", "bias", "activation"):
                assert found.get(name) == data.get(name)
        for source, target, data in graph.edges(data=True):
            found = back.edges[str(source), str(target)]
            for name in ("weight", "direct", "rest", "influence"):
                assert float(found[name]) == pytest.approx(data[name], rel=1e-9)
            assert json.loads(found["heads"]) == data["heads"]
    table = edges_table(graph).set_index(["source", "target"])
    assert len(table) == graph.number_of_edges()
    for source, target, data in graph.edges(data=True):
        row = table.loc[(str(source), str(target))]
        assert row["direct"] == data["direct"]
        assert json.loads(row["factors"]) == data["factors"]

"""Graphs found in Python: labels without text, and files by NetworkX's own writers."""

import json

import networkx as nx
import pytest

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.features.card import promoted_labels
from circuits.graph import Node, as_json
from circuits.render.export import portable, write
from tests.circuits.synthetic import circuit
from tests.conftest import full_suite, toy, toy_prompts, toy_tokenizer


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

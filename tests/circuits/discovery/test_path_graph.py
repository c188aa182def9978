"""Graphs of the strongest paths: what lies on them, and what each edge carries."""

import networkx as nx
import pytest

from circuits.discovery.config import DiscoverConfig
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.replacement import discover_replacement
from tests.circuits.conftest import call
from tests.toys import analysis_of, shared_toy, toy_prompts, toy_suite
from transcoders.paths import find_paths, node_of

SITES = ("mlp_in.0-mlp_out.0", "mlp_in.1-mlp_out.1", "mlp_in.2-mlp_out.2")


def analysis(n=1, **settings):
    settings = {"method": "replacement", "reference": "zero", **settings}
    return analysis_of(shared_toy(), toy_suite(*SITES), toy_prompts(n, 4), **settings)


def plain(graph):
    """Edges by the names of their ends, outputs as such."""
    return {(str(s), str(t)): data for s, t, data in graph.edges(data=True)}


def test_a_graph_has_what_lies_on_the_strongest_paths_and_its_exact_edges():
    graph = discover_replacement(analysis(paths=30)).graph
    (opened,) = ReplacedPrompts(analysis())
    found = find_paths(opened.model, opened.outputs.targets, 30, traced=10**6)
    expected = found.graph([opened.outputs.outputs[0].node])
    assert {str(n) for n in graph} == {str(n) for n in expected}
    whole = plain(discover_replacement(analysis(nodes=None)).graph)
    kept = plain(graph)
    assert kept.keys() == plain(expected).keys()
    for pair, data in kept.items():
        assert data["weight"] == pytest.approx(whole[pair]["weight"], rel=1e-9)
        assert data["paths"] == pytest.approx(plain(expected)[pair]["paths"], rel=1e-5)
    record = graph.graph["paths"]
    assert record["asked"] == 30
    assert record["found"] == len([path for path in found if path.sources])
    assert record["weight"] == pytest.approx(found.weight, rel=1e-5)
    assert record["total"] == pytest.approx(found.total, rel=1e-5)
    first = next(path for path in found if path.sources)
    names = [str(node_of(opened.model, source)) for source in first.sources]
    assert record["strongest"][0]["nodes"][:-1] == names
    assert nx.is_directed_acyclic_graph(graph)
    left_out = graph.graph["left_out"]["on_no_path"]
    assert left_out + graph.graph["nodes_kept"] == graph.graph["nodes_active"]


@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_of_several_prompts_paths_are_means(positions):
    graph = discover_replacement(analysis(3, paths=15, positions=positions)).graph
    weight = total = 0.0
    for opened in ReplacedPrompts(analysis(3)):
        found = find_paths(opened.model, opened.outputs.targets, 15, traced=10**6)
        weight, total = weight + found.weight / 3, total + found.total / 3
    record = graph.graph["paths"]
    assert record["weight"] == pytest.approx(weight, rel=1e-5)
    assert record["total"] == pytest.approx(total, rel=1e-5)
    output = next(node for node in graph if node.kind == "logit")
    into = sum(data["paths"] for *_, data in graph.in_edges(output, data=True))
    constant = record["weight"] - into
    listed = sum(path["weight"] for path in record["strongest"])
    assert record["found"] <= 50
    assert listed + constant == pytest.approx(record["weight"], rel=1e-5)
    assert {node.position is None for node in graph if node.kind == "feature"} == {
        positions == "sum"
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"paths": 5}, "paths are of replacement graphs: ask for --method replacement"),
        ({"paths": 0, "method": "replacement"}, "paths is 0: expected at least 1"),
        (
            {"paths": 5, "influence": 0.9, "method": "replacement"},
            "prune by one of influence and paths",
        ),
    ],
)
def test_what_cannot_be_asked(settings, message):
    with pytest.raises(ValueError, match=message):
        DiscoverConfig(**settings)


def test_the_command_says_what_the_paths_add_up_to(tmp_path):
    prompt = ("--clean", "The surgeons near the jackets", "--answer", " sit", "--wrong", " sits")
    asked = ("discover", *prompt, "--method", "replacement", "--paths", 20, "--out", tmp_path / "r")
    done = call(*asked)
    assert done.exit_code == 0, done.output
    assert "strongest paths add up to" in " ".join(done.output.split())
    drawn = call("render", tmp_path / "r", "--to", "svg")
    assert drawn.exit_code == 0, drawn.output

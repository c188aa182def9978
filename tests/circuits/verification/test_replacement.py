"""Replacement graphs held against interventions: what must agree exactly, and what is reported."""

from dataclasses import replace

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.replacement import discover_replacement
from circuits.graph import ordered
from circuits.metrics.readout import Readout
from circuits.verification.replacement import (
    EDGE_MODES,
    NODE_MODES,
    measure,
    of_transcoders,
    scores,
)
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.progress import silent
from hooked_qwen.sites import Site
from saes.evaluation.baselines import dealt_anew
from saes.suite import Suite
from tests.circuits.discovery.replaced import SITES, rows_of, speaking, unanswered
from tests.toys import padded_on_the_left, shared_toy, toy_prompts, toy_suite
from tests.transcoders.toys import cross_layer_suite
from transcoders.interventions import DIRECT, THE_GRAPH, THE_MODEL

EXACT = 1e-10


def found_in(prompts, suite=None, model=None, **config):
    config = {"method": "replacement", "nodes": None, "reference": "patch", **config}
    suite = suite or toy_suite(*SITES)
    analysis = Analysis.of(model or shared_toy(), suite, prompts, DiscoverConfig(**config))
    return analysis, discover_replacement(analysis).graph


def numbers(values):
    return torch.tensor(list(values), dtype=torch.float64)


def measured(analysis, graph):
    nodes = [n for n in ordered(graph) if n.kind != "logit"]
    edges = sorted(graph.edges, key=str)[::7]
    return nodes, edges, measure(analysis, nodes, edges, silent)


@pytest.mark.parametrize(("reference", "positions"), [("patch", "keep"), ("zero", "sum")])
def test_in_the_model_of_the_graph_predictions_are_what_happens(reference, positions):
    analysis, graph = found_in(toy_prompts(2, length=4), reference=reference, positions=positions)
    nodes, edges, found = measured(analysis, graph)
    effects = numbers(graph.nodes[n]["effect"] for n in nodes)
    torch.testing.assert_close(found.predicted.mean(1), effects, atol=EXACT, rtol=1e-6)
    torch.testing.assert_close(found.nodes[THE_GRAPH], found.predicted, atol=EXACT, rtol=0)
    weights = numbers(graph.edges[e]["weight"] for e in edges)
    torch.testing.assert_close(found.edges[DIRECT].mean(1), weights, atol=EXACT, rtol=0)
    # And these react otherwise where more of the model is live.
    for mode in NODE_MODES:
        apart = float((found.nodes[mode] - found.predicted).abs().max())
        assert mode == THE_GRAPH or apart > 1e-4
    for mode in EDGE_MODES:
        assert mode == DIRECT or float((found.edges[mode].mean(1) - weights).abs().max()) > 1e-4


@pytest.mark.parametrize("suite", ["of every layer", "across layers"])
def test_so_they_are_of_several_outputs_and_of_what_is_read_on_the_way(suite):
    suite = toy_suite(*SITES) if suite == "of every layer" else Suite(cross_layer_suite(), {})
    one, model = rows_of(toy_prompts(2, length=4), [0]), speaking()
    direction = torch.randn(24, dtype=torch.float64, generator=torch.Generator().manual_seed(9))
    probe = Readout(site=Site.parse("mlp_in.2"), direction=direction, bias=0.5, position=3)
    alone = replace(one, patch=None)
    for prompts, metric in ((unanswered(alone, model), "logit-difference"), (alone, probe)):
        analysis, graph = found_in(prompts, suite, model, reference="zero", metric=metric)
        _, edges, found = measured(analysis, graph)
        torch.testing.assert_close(found.nodes[THE_GRAPH], found.predicted, atol=1e-6, rtol=0)
        weights = numbers(graph.edges[e]["weight"] for e in edges)
        torch.testing.assert_close(found.edges[DIRECT].mean(1), weights, atol=1e-6, rtol=0)


def test_the_exact_effect_is_that_of_moving_the_node_in_the_model():
    """As of sparse feature graphs, which the oracle of those says."""
    prompts = toy_prompts(2, length=4)
    analysis, graph = found_in(prompts)
    nodes, _, found = measured(analysis, graph)
    kept = Analysis.of(analysis.model, analysis.suite, prompts, DiscoverConfig())
    (state,) = kept.states
    expected = exact_effects(kept, state, nodes)
    # A feature that a prompt has off is no node of that prompt's graph, and does not move.
    moves = found.nodes[THE_MODEL] != 0
    assert moves.sum() > 50
    torch.testing.assert_close(found.nodes[THE_MODEL][moves], expected[moves], atol=1e-6, rtol=0)


def test_padding_changes_nothing():
    prompts = toy_prompts(2, length=4)
    wide = padded_on_the_left(prompts, pad=3)
    runs = []
    for some, pad in ((prompts, 0), (wide, 3)):
        model, suite = shared_toy(dtype=torch.float32), toy_suite(*SITES, dtype=torch.float32)
        analysis, graph = found_in(some, suite, model, positions="end")
        nodes, _, found = measured(analysis, graph)
        same = [node._replace(position=node.position - pad) for node in nodes]
        runs.append(dict(zip(same, found.nodes[THE_MODEL].mean(1).tolist(), strict=True)))
    assert runs[0].keys() == runs[1].keys()
    for name, effect in runs[0].items():
        assert runs[1][name] == pytest.approx(effect, abs=1e-4)


def test_the_record_has_all_that_others_have_and_every_mode():
    prompts = toy_prompts(2, length=4)
    suite = toy_suite(*SITES[1:], "attn_out.1")
    analysis, graph = found_in(prompts, suite, nodes=12)
    ranking = discover_replacement(analysis).ranking
    check = VerifyConfig(level="full", draws=1, to="mean")
    record = verify(analysis, graph, ranking, config=check)
    assert record["schema"] == "verification/1"
    assert record["estimator"] == "linear paths"
    for node in graph:
        assert node.kind == "logit" or graph.nodes[node]["exact"] is not None
    modes = {(m["attention"], m["mlps"]): m for m in record["node_modes"]}
    assert set(modes) == {(m.attention, m.mlps) for m in NODE_MODES}
    assert modes["frozen", "linear"]["slope"] == pytest.approx(1, abs=1e-6)
    assert modes["frozen", "linear"]["weighted_sign_agreement"] == 1
    assert modes["free", "model"]["slope"] == record["nodes"]["slope"]
    assert modes["free", "model"]["intervals"]["pearson"] is not None
    (direct,) = [m for m in record["edge_modes"] if (m["attention"], m["mlps"]) == ("frozen",) * 2]
    assert direct["pearson"] == pytest.approx(1, abs=1e-6)
    # All that ablation moves, kept, is the whole model: also what is off in the clean prompt.
    curve = record["curves"]
    assert curve["rows"]["circuit"]["faithfulness"][-1] == pytest.approx(1, abs=1e-5)
    assert {"neurons", "random features", "untrained dictionaries"} <= set(curve["rows"])


def test_the_errors_of_layers_without_a_transcoder_are_no_nodes_of_a_circuit():
    analysis, _ = found_in(toy_prompts(1, length=4), toy_suite(SITES[1], "resid_post.0"))
    ranking = discover_replacement(analysis).ranking
    assert {n.site for n in ranking.nodes()} >= {"mlp_out.0", "mlp_out.1"}
    restricted, inner = of_transcoders(analysis, ranking)
    assert list(restricted.suite) == ["mlp_out.1"]
    assert {n.site for n in inner.nodes()} == {"mlp_out.1"}


def test_scores_stand_beside_those_of_decoders_dealt_anew():
    """The control is found as the graph is, by a suite whose decoder rows are shuffled by hand."""
    prompts, suite = toy_prompts(2, length=4), toy_suite(*SITES)
    analysis, graph = found_in(prompts, suite, nodes=12)
    found = scores(analysis, graph, seed=3, report=silent)
    assert found["graph"]["replacement"] == graph.graph["replacement_score"]
    dealt = dealt_anew(suite, seed=3)
    for name in suite:
        rows, own = dealt[name].W_dec, suite[name].W_dec
        assert not torch.equal(rows, own)
        torch.testing.assert_close(rows.sort(0).values, own.sort(0).values)
        assert torch.equal(dealt[name].W_enc, suite[name].W_enc)
    _, by_hand = found_in(prompts, dealt, nodes=12)
    control = found["decoders dealt anew"]
    assert control["replacement"] == pytest.approx(by_hand.graph["replacement_score"], rel=1e-5)
    assert control["completeness"] == pytest.approx(by_hand.graph["completeness_score"], rel=1e-5)
    low, high = control["intervals"]["replacement"]
    assert low <= control["replacement"] <= high
    assert scores(*found_in(toy_prompts(1, length=4), suite), seed=3, report=silent)[
        "decoders dealt anew"
    ]["intervals"] == {"replacement": None, "completeness": None}

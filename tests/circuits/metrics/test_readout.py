"""Metrics that read a site, and metrics of the user's own: the same laws as of logits."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from circuits.ablation.faithfulness import full_and_empty
from circuits.ablation.path_patching import exact_edges
from circuits.analysis import Analysis
from circuits.attribution.effects import gradients_at_clean
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits import ablation as edits
from circuits.edits.ablate import ablate
from circuits.graph import Node, as_json
from circuits.metrics.readout import Readout, keep_readout, read_metric
from circuits.runs.discover_run import discover_run
from circuits.runs.finished_run import read_run
from circuits.runs.inputs import Inputs
from circuits.runs.prompt_sets import make_prompts
from circuits.runs.verify_run import verify_run
from circuits.verification.verify import VerifyConfig
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.suite import Suite
from tests.circuits.dense import ranking_of
from tests.circuits.metrics.probes import (
    AT,
    DIRECTION,
    FEATURE_SITE,
    MEAN,
    PROBE,
    on_most,
    site_tensor,
)
from tests.toys import (
    analysis_of,
    found_and_verified,
    random_dictionary,
    toy_hf,
    toy_prompts,
)


def relu_suite():
    """Around the feature, without the jumps of features that switch by their rank."""
    found = {}
    for seed, (source, target) in enumerate(
        [
            ("resid_post.0",) * 2,
            ("attn_out.1",) * 2,
            ("mlp_in.1", FEATURE_SITE),
            ("resid_post.1",) * 2,
        ]
    ):
        spec = DictionarySpec(
            source=Site.parse(source), target=Site.parse(target), architecture="relu"
        )
        found[spec.target] = random_dictionary(spec, seed=seed)
    return Suite(found, {})


@pytest.mark.parametrize("estimator", ["patching", "ig", "ig-inputs", "relp", "exact"])
@pytest.mark.parametrize("which", ["readout", "feature"])
def test_nodes_behind_the_site_or_later_have_no_effect(case, feature, which, estimator):
    model, suite, prompts = case
    config = DiscoverConfig(
        metric=PROBE if which == "readout" else feature, estimator=estimator, steps=2
    )
    last = Site("resid_post", 1) if which == "readout" else Site("resid_post", 0)
    if which == "feature":
        last = Site("attn_out", 1)
    found = discover(Analysis.of(model, suite, prompts, config))
    moving = {node for node, effect in found.ranking if effect}
    behind = [n for n, _ in found.ranking if Site.parse(n.site) > last or n.position > AT]
    assert behind
    assert not moving & set(behind)
    assert {n.site for n in moving} >= {"resid_post.0", "attn_out.1", "embed"}
    assert not any(n in found.graph for n in behind)


def test_through_what_is_linear_patching_is_exact(case):
    """From the last stream site, and through a model whose blocks add nothing."""
    model, suite, prompts = case
    for estimator in ("patching", "ig"):
        exact, found = (
            dict(discover(Analysis.of(model, suite, prompts, c)).ranking)
            for c in (
                DiscoverConfig(metric=PROBE, estimator="exact", steps=1),
                DiscoverConfig(metric=PROBE, estimator=estimator, steps=1),
            )
        )
        for node, effect in exact.items():
            if node.site in ("resid_post.1", "mlp_out.1"):
                assert found[node] == pytest.approx(effect, abs=1e-6)
    hf = toy_hf()
    with torch.no_grad():
        for layer in hf.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    linear, at = hook(hf, name="linear"), dataclasses.replace(PROBE, position=1)
    exact, found = (
        dict(discover(analysis_of(linear, suite, prompts, metric=at, estimator=e, steps=1)).ranking)
        for e in ("exact", "patching")
    )
    assert {n.site for n, e in exact.items() if e} == {
        "embed",
        "resid_post.0",
        "mlp_out.1",
        "resid_post.1",
    }
    assert found == pytest.approx(exact, abs=1e-6)


def test_the_effects_of_a_site_s_nodes_add_up_to_the_move(case):
    """Of the site itself, and of the stream before it; a feature that switches by rank jumps."""
    model, _, prompts = case
    suite = relu_suite()
    feature = f"feature:{FEATURE_SITE}/{on_most(model, suite, prompts)}@{AT}"
    for metric, site, steps, error in (
        (PROBE, "resid_post.1", 1, 1e-6),
        (PROBE, "resid_post.0", 60, 1e-3),
        (MEAN, "resid_post.1", 1, 1e-6),
        (MEAN, "resid_post.0", 60, 1e-3),
        (feature, "resid_post.0", 60, 1e-3),
    ):
        found = discover(analysis_of(model, suite, prompts, metric=metric, steps=steps))
        total = sum(effect for node, effect in found.ranking if node.site == site)
        meta = found.graph.graph
        move = meta["patch_metric"] - meta["clean_metric"]
        assert total == pytest.approx(move, rel=error, abs=1e-6)


@pytest.mark.parametrize("probe", [PROBE, MEAN], ids=["a token", "mean"])
def test_edges_to_the_output_are_node_effects_and_hold_against_path_patching(case, probe):
    model, suite, prompts = case
    config = DiscoverConfig(metric=probe, estimator="patching", nodes=30, edge_threshold=0.0)
    analysis = Analysis.of(model, suite, prompts, config)
    found = discover(analysis)
    (output,) = (n for n in found.graph if n.kind == "logit")
    assert str(output) == f"logit/readout:resid_post.1@{probe.position}"
    sources = list(found.graph.predecessors(output))
    assert sources
    assert {n.site for n in sources} == {"resid_post.1"}
    (state,) = analysis.states
    gradients = gradients_at_clean(analysis, state)
    edges = [(n, output) for n in sources]
    exact = exact_edges(analysis, state, gradients, edges).mean(1)
    for (source, target), weight in zip(edges, exact.tolist(), strict=True):
        assert found.graph[source][target]["weight"] == pytest.approx(weight, abs=1e-6)
        assert found.graph.nodes[source]["effect"] == pytest.approx(weight, abs=1e-6)


def test_a_feature_s_circuit_is_verified_as_any_other(case, feature):
    model, _, prompts = case
    suite = relu_suite()
    feature = f"feature:{FEATURE_SITE}/{on_most(model, suite, prompts)}@{AT}"
    config = DiscoverConfig(metric=feature, estimator="ig", nodes=30, steps=40, edge_threshold=0.0)
    found, record = found_and_verified(model, suite, prompts, config)
    (output,) = (n for n in found.graph if n.kind == "logit")
    assert str(output) == f"logit/{feature.removeprefix('feature:')}"
    into = {n.site for n in found.graph.predecessors(output)}
    assert into <= {"attn_out.1", "resid_post.0"}
    assert "attn_out.1" in into
    assert record["metric"] == feature == found.graph.graph["metric"]
    assert record["nodes"]["n"] > 20
    assert record["edges"]["strongest"]["n"] == 50
    clean = found.graph.graph["clean_metric"]
    assert record["curves"]["full"] == pytest.approx(clean, abs=1e-6)


def test_every_token_moves_a_mean(case):
    model, suite, prompts = case
    found = discover(analysis_of(model, suite, prompts, metric=MEAN, estimator="exact"))
    moving = {(n.site, n.position) for n, effect in found.ranking if effect}
    assert {p for site, p in moving if site == "resid_post.1"} == set(range(1, 6))
    assert found.graph.graph["metric"] == MEAN.name


@pytest.mark.parametrize("to", ["mean", "patch"])
def test_with_everything_ablated_a_readout_is_of_the_baseline(case, to):
    model, suite, prompts = case
    analysis = analysis_of(model, suite, prompts, metric=PROBE, batch_size=2)
    found = full_and_empty(analysis, to)
    patch = site_tensor(prompts.patch.tokens, lambda hf: hf.model.layers[1])[:, AT]
    expected = (patch.mean(0, keepdim=True) if to == "mean" else patch) @ DIRECTION + 0.5
    torch.testing.assert_close(found.empty, expected.expand(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.full, analysis.metric.clean, atol=1e-6, rtol=0)


def test_an_ablation_is_measured_on_what_the_site_then_holds(case):
    model, suite, prompts = case
    config = DiscoverConfig(metric=PROBE)
    nodes = (Node("resid_post.1", "error"), *(Node("resid_post.1", i) for i in range(20)))
    edit, ranking = edits.Ablation(ablated=nodes), ranking_of(suite, [])
    result = ablate(Analysis.of(model, suite, prompts, config), edit, ranking)
    expected = suite[Site("resid_post", 1)].b_dec @ DIRECTION + 0.5
    assert result["after"] == pytest.approx(float(expected), abs=1e-5)


def difference(logits, rows):
    """The logit difference of the toy prompts, written by hand."""
    prompts = toy_prompts(n=3)
    right, wrong = (torch.tensor(ids)[rows, 0] for ids in (prompts.answer_ids, prompts.wrong_ids))
    at = torch.arange(len(rows))
    return logits[at, right] - logits[at, wrong]


@pytest.mark.parametrize("estimator", ["patching", "ig"])
def test_a_function_of_logits_is_a_metric_like_those_with_names(case, estimator):
    model, suite, prompts = case
    config = DiscoverConfig(estimator=estimator, nodes=15, steps=2, batch_size=2)
    own = dataclasses.replace(config, metric=difference)
    named, found = (discover(Analysis.of(model, suite, prompts, c)) for c in (config, own))
    assert dict(found.ranking) == pytest.approx(dict(named.ranking), abs=1e-9)
    assert found.graph.graph["metric"] == "python:difference"
    assert "difference" in [n.feature for n in found.graph if n.kind == "logit"]
    json.dumps(as_json(found.graph))
    edit = edits.Ablation(ablated=(Node("resid_post.1", "error"),))
    ranking = ranking_of(suite, [])
    results = [ablate(Analysis.of(model, suite, prompts, c), edit, ranking) for c in (config, own)]
    for field in ("before", "after", "accuracy_after"):
        assert results[1][field] == pytest.approx(results[0][field], abs=1e-6)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda logits, rows: logits, r"gave \(3, .*expected a tensor of shape \(3,\)"),
        (lambda logits, rows: 1.0, "gave float"),
        (lambda logits, rows: logits.detach()[:, 0], "has no gradient: write it in torch"),
        ("python:gone", "this run's metric is gone, a Python function"),
    ],
)
def test_what_is_no_metric_of_these_prompts_is_refused(case, metric, message):
    model, suite, prompts = case
    with pytest.raises(ValueError, match=message):
        discover(analysis_of(model, suite, prompts, metric=metric, estimator="patching"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("perplexity", "no metric is called 'perplexity': expected logit-difference, log-prob"),
        ("feature:mlp_out.1/error", "names no feature"),
        ("readout:mlp_out.1", "write 'readout:SITE:FILE'"),
        ("readout:mlp_out.1:gone.npy", "there is no direction at gone.npy"),
        ("python:f", "discover with it from Python"),
    ],
)
def test_a_text_that_names_no_metric_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_metric(text)


def test_directions_come_from_both_kinds_of_file(tmp_path):
    direction = DIRECTION.float()
    np.save(tmp_path / "a.npy", direction.numpy())
    save_file({"w": direction[None]}, tmp_path / "b.safetensors")
    save_file({"direction": direction, "bias": torch.tensor([0.5])}, tmp_path / "c.safetensors")
    read = [read_metric(f"readout:resid_post.1@4:{tmp_path / f}.{s}") for f, s in
            (("a", "npy"), ("b", "safetensors"), ("c", "safetensors"))]  # fmt: skip
    assert [r.bias for r in read] == [0, 0, 0.5]
    assert all(torch.equal(r.direction, direction) for r in read)
    assert read[0].name == read[1].name != read[2].name
    save_file({"a": direction, "b": direction + 1}, tmp_path / "d.safetensors")
    assert read_metric(f"readout:resid_post.1@mean:{tmp_path / 'a.npy'}").position == "mean"
    with pytest.raises(ValueError, match="holds a, b: expected one tensor"):
        read_metric(f"readout:resid_post.1:{tmp_path / 'd.safetensors'}")
    np.save(tmp_path / "e.npy", np.eye(3))
    with pytest.raises(ValueError, match=r"shape \(3, 3\): expected one row"):
        read_metric(f"readout:resid_post.1:{tmp_path / 'e.npy'}")


def answer_logit(logits, rows):
    return logits[:, 0] - logits.mean(-1)


def test_a_run_keeps_a_readout_and_asks_again_for_a_function(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    make_prompts("agreement_nounpp", 2, split="test", seed=0, model="bundled", out=prompts)
    inputs = Inputs.resolved("bundled", "bundled", prompts)
    config = DiscoverConfig(metric=answer_logit, estimator="patching", nodes=3)
    discover_run(inputs, tmp_path / "run", config=config)
    run = read_run(tmp_path / "run")
    with pytest.raises(ValueError, match="metric is answer_logit, a Python function that the run"):
        verify_run(tmp_path / "run", config=VerifyConfig(draws=1))
    assert run.with_metric(answer_logit).config.metric is answer_logit
    with pytest.raises(ValueError, match="made with the metric python:answer_logit, not with kl"):
        run.with_metric("kl")
    probe = Readout(site=Site("resid_post", 1), direction=torch.randn(128), position=2)
    keep_readout(probe, run.folder)
    manifest = json.loads((run.folder / "manifest.json").read_text())
    manifest["config"]["metric"] = probe.name
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    kept = read_run(run.folder).config.metric
    assert (kept.name, kept.site, kept.position) == (probe.name, probe.site, 2)
    assert torch.equal(kept.direction, probe.direction)
    keep_readout(dataclasses.replace(probe, bias=1.0), run.folder)
    with pytest.raises(ValueError, match="is not the direction that"):
        read_run(run.folder)
    keep_readout("kl", run.folder)
    assert not (run.folder / "metric.safetensors").exists()

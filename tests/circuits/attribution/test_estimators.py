"""The table of estimators: every row is exact where all is linear; a new row is all it takes."""

import json
from contextlib import contextmanager

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.analysis import Analysis
from circuits.attribution.effects import effects_by_prompt, gradients_at_clean, node_effects
from circuits.attribution.estimators import ESTIMATORS, Estimator
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.sparse_feature import discover
from circuits.graph import as_json
from circuits.metrics.readout import Readout
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from tests.toys import analysis_of, shared_toy, toy_hf, toy_prompts, toy_suite

CHANGED = 1
"The position at which clean and patch prompts differ."
DIRECTION = torch.linspace(-1, 1, 24, dtype=torch.float64)
PROBE = Readout(site=Site("resid_post", 2), direction=DIRECTION, position=CHANGED)


def linear_model():
    """Blocks that add nothing: the stream is the embeddings, whatever the prompt."""
    hf = toy_hf()
    for layer in hf.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    return hook(hf, name="linear")


@pytest.fixture(scope="module")
def linear():
    """Nodes of every kind whose effects are linear in their moves."""
    suite = toy_suite("resid_post.0", "mlp_in.1-mlp_out.1", "resid_post.1", "attn_out.2")
    return analysis_of(linear_model(), suite, toy_prompts(n=4), metric=PROBE, batch_size=3)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_where_all_is_linear_every_estimator_is_exact(linear, name):
    config = DiscoverConfig(metric=PROBE, estimator=name, batch_size=3, steps=3)
    analysis = linear.asked(config)
    nodes = rank_nodes(analysis)[0].nodes()
    assert {n.kind for n in nodes} == {"feature", "error", "token"}
    for state in analysis.states:
        gradients = ESTIMATORS[name].gradients(analysis, state)
        exact = exact_effects(analysis, state, nodes)
        assert exact.dtype == torch.float64
        assert exact.abs().max() > 0.1
        assert ((exact.abs() > 1e-3).sum(1) > 0).sum() > 20
        found = effects_by_prompt(analysis, state, gradients, nodes)
        torch.testing.assert_close(found, exact, atol=1e-10, rtol=0)
        summed = dict(iter(node_effects(analysis, state, gradients)))
        for node, effect in zip(nodes, exact.sum(1).tolist(), strict=True):
            assert summed.get(node, 0.0) == pytest.approx(effect, abs=1e-10)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_by_every_estimator_what_is_ranked_is_what_is_measured(linear, name):
    """The whole way from prompts to a checked graph, not only the estimate."""
    config = DiscoverConfig(metric=PROBE, estimator=name, batch_size=3, steps=3, nodes=12)
    analysis = linear.asked(config)
    found = discover(analysis)
    record = verify(analysis, found.graph, found.ranking, config=VerifyConfig(level="quick"))
    assert record["estimator"] == name == found.graph.graph["estimator"]
    for node, data in found.graph.nodes(data=True):
        if node.kind != "logit":
            assert data["exact"] == pytest.approx(data["effect"], abs=1e-10)


def test_a_new_estimator_is_one_row(monkeypatch):
    """Twice the gradient at clean: its effects are twice those of `patching`, all the way."""

    def doubled(analysis, state):
        asked.append(len(state.rows))
        return {site: 2 * g for site, g in gradients_at_clean(analysis, state).items()}

    asked: list[int] = []
    monkeypatch.setitem(ESTIMATORS, "doubled", Estimator(estimate=doubled, at_clean=True))
    case = shared_toy(), toy_suite("attn_out.1", "mlp_out.1", "resid_post.1"), toy_prompts(n=3)
    analyses = [
        Analysis.of(*case, DiscoverConfig(estimator=name, nodes=12, batch_size=2))
        for name in ("patching", "doubled")
    ]
    plain, found = (discover(analysis) for analysis in analyses)
    assert asked == [2, 1]
    assert found.ranking.nodes() == plain.ranking.nodes()
    twice = {node: 2 * effect for node, effect in plain.ranking}
    assert dict(found.ranking) == pytest.approx(twice, rel=1e-12)
    assert found.graph.graph["estimator"] == "doubled"
    assert json.loads(json.dumps(as_json(found.graph)))["meta"]["estimator"] == "doubled"
    check = VerifyConfig(level="quick")
    records = [
        verify(analysis, one.graph, one.ranking, config=check)
        for analysis, one in zip(analyses, (plain, found), strict=True)
    ]
    assert records[1]["estimator"] == "doubled"
    halves = [r["nodes"]["slope"] for r in records]
    assert halves[1] == pytest.approx(halves[0] / 2, rel=1e-5)
    assert records[1]["nodes"]["spearman"] == records[0]["nodes"]["spearman"]
    with pytest.raises(ValueError, match="kl has no gradient at the clean run, which doubled"):
        DiscoverConfig(estimator="doubled", metric="kl")


def test_a_row_s_rules_hold_for_its_gradients_and_for_its_edges(monkeypatch):
    """What `rules` puts into the model is there when gradients are taken, and gone afterwards."""
    inside, seen, last = [], [], [""]

    @contextmanager
    def rules(model):
        inside.append(model)
        yield
        inside.pop()

    def taken(*_):
        if torch.is_grad_enabled():
            seen.append((last[0], list(inside)))

    def report(what, *_):
        last[0] = what

    monkeypatch.setitem(ESTIMATORS, "ruled", Estimator(estimate=gradients_at_clean, rules=rules))
    model = shared_toy()
    suite = toy_suite("mlp_out.0", "resid_post.1")
    analysis = analysis_of(model, suite, toy_prompts(n=2), estimator="ruled", nodes=5)
    handle = model.blocks[1].register_forward_hook(taken)
    try:
        discover(analysis, report=report)
    finally:
        handle.remove()
    # What is done is told of afterwards: edges are weighed once effects of nodes are told of.
    assert {told for told, _ in seen} == {"", "node effects"}
    assert all(models == [model] for _, models in seen)
    assert not inside

"""Laws that estimates of node effects obey, against exact runs of real model code."""

import dataclasses

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.attribution.effects import (
    gradients_along_path,
    gradients_at_clean,
    node_effects,
)
from circuits.attribution.estimators import ESTIMATORS
from circuits.attribution.forward import run_from
from circuits.discovery.config import DiscoverConfig
from circuits.graph import Node
from circuits.metrics.metric import metric_at
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from tests.circuits.dense import dense, nearer, nodes_that_move
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts, toy_suite


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts())


@pytest.fixture(scope="module")
def state(analysis):
    (state,) = analysis.states
    return state


def summed(analysis):
    """The same with positions summed."""
    config = dataclasses.replace(analysis.config, positions="sum")
    return dataclasses.replace(analysis, config=config)


def test_features_bias_and_error_add_up_to_the_tensor(analysis, state):
    suite = analysis.suite
    for site, nodes in state.errors.items():
        total = suite[site].decode(state.features[str(site)].f) + nodes.error
        torch.testing.assert_close(total, state.values[site], atol=1e-12, rtol=0)


def test_first_order_error_is_second_order_in_the_move(analysis, state):
    """Halving every move quarters the gap between estimate and exact effect."""
    analysis = summed(analysis)
    gradients = gradients_at_clean(analysis, state)
    nodes = [n for n in nodes_that_move(analysis, state) if n.site == "resid_post.0"]

    def gap(share: float) -> torch.Tensor:
        near = nearer(state, share)
        effects = dict(iter(node_effects(analysis, near, gradients)))
        estimate = torch.tensor([effects[n] for n in nodes], dtype=torch.float64)
        return (exact_effects(analysis, near, nodes).sum(1) - estimate).abs().sum()

    assert float(gap(1e-2) / gap(5e-3)) == pytest.approx(4, rel=0.1)


def test_integrated_gradients_are_complete(analysis, state):
    """All nodes of a site together explain m(site at patch) - m(clean), to quadrature error."""
    analysis = analysis.asked(DiscoverConfig(steps=200))
    model, suite, metric = analysis.model, analysis.suite, analysis.metric
    gradients = gradients_along_path(analysis, state)
    effects = node_effects(analysis, state, gradients)
    for site, dictionary in suite.items():
        at = Site.parse(site)
        move = dense(state, site).change @ dictionary.W_dec + state.errors[at].change
        value = state.values[at] + move
        with torch.no_grad():
            stream = run_from(model, state, at, value, state.rows)
            moved = metric_at(model, stream, metric, state.rows)
        gap = float((moved - metric(state.logits, state.rows)).sum())
        total = sum(effect for node, effect in effects if node.site == site)
        assert total == pytest.approx(gap, abs=2e-3), site


def test_patching_is_exact_where_the_rest_is_linear(analysis, state):
    """A metric linear in the last stream's tensor leaves no first-order error."""
    suite, site = analysis.suite, Site("resid_post", 2)
    direction = torch.randn(24, dtype=torch.float64)
    change = dense(state, site).change @ suite[site].W_dec + state.errors[site].change
    gradient = {s: torch.zeros_like(v) for s, v in state.values.items()}
    gradient[site] = direction.expand_as(change)
    effects = node_effects(analysis, state, gradient)
    torch.testing.assert_close(effects.effect.sum(), (change @ direction).sum(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("estimator", ["patching", "ig", "exact"])
def test_padding_and_batching_change_nothing(estimator):
    """A prompt alone, and beside a longer one that pads it, has the same effects."""
    model, suite = shared_toy(dtype=torch.float32), full_suite(torch.float32)
    prompts = toy_prompts(n=2)
    pad = 3

    def widen(batch: Batch) -> Batch:
        tokens = torch.cat([torch.zeros(2, pad, dtype=torch.long), batch.tokens], 1)
        mask = torch.cat([torch.zeros(2, pad, dtype=torch.bool), batch.mask], 1)
        return Batch(tokens=tokens, mask=mask)

    wide = dataclasses.replace(prompts, clean=widen(prompts.clean), patch=widen(prompts.patch))
    results = []
    for version, size in ((prompts, 2), (wide, 1)):
        analysis = analysis_of(
            model, suite, version, estimator=estimator, positions="sum", batch_size=size, steps=4
        )
        results.append(sum(_effects(analysis, state) for state in analysis.states))
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-3)


def _effects(analysis, state) -> torch.Tensor:
    nodes = [Node(site, f) for site in analysis.suite for f in [*range(20), "error"]]
    if analysis.config.estimator == "exact":
        return exact_effects(analysis, state, nodes).sum(1)
    gradients = ESTIMATORS[analysis.config.estimator].gradients(analysis, state)
    effects = dict(iter(node_effects(analysis, state, gradients)))
    return torch.tensor([effects.get(node, 0.0) for node in nodes], dtype=torch.float64)


def test_zero_reference_moves_everything_to_nothing(analysis):
    alone = dataclasses.replace(analysis.prompts, patch=None)
    (state,) = analysis_of(analysis.model, analysis.suite, alone, reference="zero").states
    for name in analysis.suite:
        assert torch.equal(dense(state, name).change, -dense(state, name).f)
    for nodes in state.errors.values():
        assert torch.equal(nodes.change, -nodes.error)


def test_the_patch_reference_needs_a_patch(analysis):
    alone = dataclasses.replace(analysis.prompts, patch=None)
    with pytest.raises(ValueError, match="prompts have no patch"):
        _ = analysis.on(alone).states


def test_token_nodes_are_the_positions_that_differ(analysis, state):
    nothing = {site: torch.zeros_like(value) for site, value in state.values.items()}
    for some, at in ((analysis, 1), (summed(analysis), None)):
        nodes = node_effects(some, state, nothing).nodes()
        assert [n for n in nodes if n.kind == "token"] == [Node("embed", "token", at)]


def test_effect_is_positive_when_the_move_raises_the_metric():
    """The sign convention, on a feature whose decoder writes toward the right answer."""
    suite = toy_suite("resid_post.2")
    analysis = analysis_of(shared_toy(), suite, toy_prompts(n=1))
    (state,) = analysis.states
    gradients = gradients_at_clean(analysis, state)
    effects = dict(iter(node_effects(analysis, state, gradients)))
    change = dense(state, "resid_post.2").change[0, -1]
    i = int(change.abs().argmax())
    effect = effects[Node("resid_post.2", i, 5)]
    slope = float(gradients[Site("resid_post", 2)][0, -1] @ suite[Site("resid_post", 2)].W_dec[i])
    assert effect == pytest.approx(float(change[i]) * slope)
    small = nearer(state, 1e-3)
    exact = exact_effects(analysis, small, [Node("resid_post.2", i, 5)])
    assert (exact[0, 0] > 0) == (effect > 0)

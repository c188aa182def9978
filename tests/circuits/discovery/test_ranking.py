"""Every changed node by its mean effect, strongest first, however prompts are batched."""

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.attribution.effects import gradients_at_clean, node_effects
from circuits.discovery.ranking import rank_nodes
from tests.toys import analysis_of, shared_toy, toy_prompts, toy_suite

SITES = ("mlp_out.0", "resid_post.1")


def analysed(**config):
    return analysis_of(shared_toy(), toy_suite(*SITES), toy_prompts(5), **config)


@pytest.fixture(scope="module")
def analysis():
    return analysed(estimator="patching")


def test_effects_are_means_over_prompts_the_strongest_first(analysis):
    ranking, gradients = rank_nodes(analysis)
    (state,) = analysis.states
    effects = node_effects(analysis, state, gradients_at_clean(analysis, state))
    found = dict(ranking)
    assert found == pytest.approx({node: e / 5 for node, e in effects}, abs=1e-12)
    sizes = [abs(effect) for effect in found.values()]
    assert sizes == sorted(sizes, reverse=True)
    assert len(gradients) == 1


def test_batches_change_nothing_and_each_has_its_gradients(analysis):
    whole, (gradients,) = rank_nodes(analysis)
    parts, kept = rank_nodes(analysed(estimator="patching", batch_size=2))
    assert dict(parts) == pytest.approx(dict(whole), abs=1e-12)
    assert len(kept) == 3
    for site, g in gradients.items():
        torch.testing.assert_close(torch.cat([some[site] for some in kept]), g)


def test_by_the_exact_estimator_effects_are_those_of_the_model(analysis):
    by_model = analysed(estimator="exact")
    ranking, _ = rank_nodes(by_model)
    (state,) = by_model.states
    some = ranking.nodes()[::40]
    expected = exact_effects(by_model, state, some).mean(1)
    found = dict(ranking)
    assert [found[node] for node in some] == pytest.approx(expected.tolist(), abs=1e-9)

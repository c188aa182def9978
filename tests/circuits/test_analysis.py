"""An analysis: what is made once, what is shared, and what of it is made anew."""

import dataclasses
from contextlib import contextmanager

import pytest
import torch

from circuits.analysis import Analysis
from circuits.attribution.means import mean_over
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.metrics.metric import logit_difference
from hooked_qwen.sites import Site
from saes.evaluation.baselines import neurons
from tests.circuits.dense import dense
from tests.toys import analysis_of, full_suite, toy, toy_prompts


@pytest.fixture(scope="module")
def case():
    return toy(), full_suite(), toy_prompts(n=5)


@contextmanager
def reading(model):
    """How many times the model reads tokens."""
    count = [0]

    def seen(*_):
        count[0] += 1

    handle = model.embed.register_forward_pre_hook(seen)
    try:
        yield count
    finally:
        handle.remove()


def test_states_are_made_once_and_shared_by_whoever_asks_otherwise(case):
    model, *_ = case
    with reading(model) as times:
        analysis = analysis_of(*case, estimator="patching", batch_size=2)
        assert times == [0], "nothing is run before it is needed"
        assert [len(state.rows) for state in analysis.states] == [2, 2, 1]
        made = list(times)
        assert made[0] >= 3
        assert analysis.states is analysis.states
        assert [len(state.rows) for state in analysis.states] == [2, 2, 1]
        assert times == made
        other = analysis.asked(
            dataclasses.replace(analysis.config, estimator="ig", steps=2, nodes=7)
        )
        discover(other)
        assert other.states is analysis.states


@pytest.mark.parametrize("estimator", ["patching", "ig-inputs", "exact"])
def test_asked_otherwise_it_finds_what_a_new_analysis_finds(case, estimator):
    first = analysis_of(*case, nodes=8)
    config = DiscoverConfig(estimator=estimator, nodes=12, steps=2)
    shared, own = discover(first.asked(config)), discover(Analysis.of(*case, config))
    assert dict(shared.ranking) == dict(own.ranking)
    assert shared.graph.graph == own.graph.graph
    assert set(shared.graph.edges) == set(own.graph.edges)


def test_of_other_prompts_everything_is_of_those(case):
    model, suite, _ = case
    analysis = analysis_of(*case, batch_size=2)
    others = toy_prompts(n=3, length=4, seed=1)
    found = analysis.on(others)
    assert (found.model, found.suite, found.config) == (model, analysis.suite, analysis.config)
    assert (found.prompts, found.n_positions) == (others, 4)
    expected = Analysis.of(model, suite, others, analysis.config)
    assert [len(state.rows) for state in found.states] == [2, 1]
    for state, other in zip(found.states, expected.states, strict=True):
        assert torch.equal(state.logits, other.logits)
        values = [a.metric(state.logits, state.rows) for a in (found, expected)]
        assert torch.equal(*values)
    assert not any(a.states is b.states for a, b in ((found, analysis), (found, expected)))


def test_by_other_dictionaries_states_and_means_are_made_anew(case):
    model, suite, prompts = case
    analysis = analysis_of(*case, nodes=8)
    asked = analysis.asked(DiscoverConfig(nodes=3))
    for before in (analysis, asked):
        found = before.by(neurons(suite))
        assert (found.prompts, found.metric, found.config) == (
            prompts,
            before.metric,
            before.config,
        )
        (state,) = found.states
        for name in found.suite:
            assert torch.equal(dense(state, name).f, state.values[Site.parse(name)])
        expected = mean_over(model, neurons(suite), prompts.patch, by_position=True, batch_size=32)
        for name, mean in found.means.f.items():
            assert torch.equal(mean.dense(), expected.f[name].dense())


@pytest.mark.parametrize("positions", ["keep", "sum"])
@pytest.mark.parametrize("paired", [True, False])
def test_means_are_those_over_the_patch_prompts_or_else_the_clean_ones(case, positions, paired):
    model, suite, prompts = case
    if not paired:
        prompts = dataclasses.replace(prompts, patch=None)
    analysis = analysis_of(
        model, suite, prompts, reference="zero", positions=positions, batch_size=2
    )
    found, side = analysis.means, prompts.patch if paired else prompts.clean
    assert analysis.means is found
    expected = mean_over(model, suite, side, by_position=positions == "keep", batch_size=2)
    assert analysis.n_positions == (6 if positions == "keep" else 1)
    for name in suite:
        assert len(found.f[name].dense()) == analysis.n_positions
        assert torch.equal(found.f[name].dense(), expected.f[name].dense())
    for site in suite.writes:
        assert torch.equal(found.error[site], expected.error[site])


def test_a_reference_of_the_mean_is_that_over_the_clean_prompts(case):
    """Ablation to the mean goes to that of the patch prompts: the two are not confused."""
    model, suite, prompts = case
    analysis = analysis_of(*case, reference="mean")
    (state,) = analysis.states
    clean = mean_over(model, suite, prompts.clean, by_position=True, batch_size=32)
    site = Site("mlp_out", 2)
    moved = state.errors[site].reference
    torch.testing.assert_close(moved, clean.error[site].expand_as(moved))
    assert not torch.allclose(clean.error[site], analysis.means.error[site])


def test_the_metric_is_the_configuration_s_unless_it_is_given(case):
    prompts = case[2]
    (state,) = analysis_of(*case).states
    own = logit_difference(prompts.wrong_ids, prompts.answer_ids)
    plain, given = analysis_of(*case), Analysis.of(*case, metric=own)
    assert given.metric is own
    values = [a.metric(state.logits, state.rows) for a in (plain, given)]
    torch.testing.assert_close(values[0], -values[1])


def test_it_says_what_it_is_of(case):
    model, suite, _ = case
    assert repr(analysis_of(*case)) == f"Analysis of 5 prompts in toy-qwen3: {suite.summary()}"
    one = repr(analysis_of(model, suite, toy_prompts(n=1)))
    assert one.startswith("Analysis of 1 prompt in toy-qwen3: ")
    assert "\n" not in one


def test_an_estimator_that_there_is_not_is_refused_in_one_line(case):
    with pytest.raises(ValueError, match="no estimator is called 'shap': expected one of") as told:
        analysis_of(*case, estimator="shap")
    assert "\n" not in str(told.value)
    assert all(name in str(told.value) for name in ("ig", "ig-inputs", "patching", "relp", "exact"))


def test_states_are_shared_only_by_what_they_were_made_for(case):
    analysis = Analysis.of(*case)
    for other in ({"positions": "sum"}, {"reference": "zero"}, {"batch_size": 1}):
        with pytest.raises(ValueError, match=f"were made with {next(iter(other))} .* open another"):
            analysis.asked(DiscoverConfig(**other))

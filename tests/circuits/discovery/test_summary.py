"""Means over prompts are those of the plain values, however prompts are batched."""

from dataclasses import replace

import pytest
import torch

from circuits.discovery.summary import Summary
from circuits.graph import Node
from tests.circuits.dense import dense
from tests.toys import analysis_of, shared_toy, toy_prompts, toy_suite

SITES = ("mlp_out.0", "resid_post.1")
NODES = [
    Node(site, feature, at) for site in SITES for feature in (3, 7, "error") for at in (None, 2)
]


def summed(batch_size=5, prompts=None, **config):
    analysis = analysis_of(
        shared_toy(), toy_suite(*SITES), prompts or toy_prompts(5), batch_size=batch_size, **config
    )
    found = Summary(analysis.prompts, NODES)
    for state in analysis.states:
        found.add(state, analysis.metric)
    return analysis, found


@pytest.mark.parametrize("batch_size", [5, 2])
def test_the_metric_and_how_often_the_answer_is_preferred(batch_size):
    analysis, found = summed(batch_size)
    whole, _ = summed()
    (state,) = whole.states
    clean = analysis.metric(state.logits, state.rows)
    patch = analysis.metric(state.patch_logits, state.rows)
    assert found.clean == pytest.approx(float(clean.mean()))
    assert found.patch == pytest.approx(float(patch.mean()))
    assert found.size == pytest.approx(float(clean.abs().mean()))
    # The metric is the difference of the answers' logits.
    assert found.accuracy == pytest.approx(float((clean > 0).double().mean()))


@pytest.mark.parametrize("batch_size", [5, 2])
def test_activations_are_means_and_of_a_summed_node_those_of_the_largest(batch_size):
    _, found = summed(batch_size)
    whole, _ = summed()
    (state,) = whole.states
    for node, mean in zip(NODES, found.activations(), strict=True):
        if node.kind == "error":
            (value,) = (
                e.error.norm(dim=-1) for s, e in state.errors.items() if str(s) == node.site
            )
        else:
            value = dense(state, node.site).f[..., node.feature]
        own = value.amax(-1) if node.position is None else value[:, node.position]
        assert mean == pytest.approx(float(own.mean()), abs=1e-9)


def test_norm_outliers_are_counted_where_there_are_some():
    analysis, found = summed()
    (state,) = analysis.states
    counts = {name: int(state.outlier[name].sum()) for name in SITES}
    expected = {name: n for name, n in counts.items() if n}
    assert found.norm_outliers() == {"tokens": 5 * 6, "at": expected}


def test_what_prompts_do_not_have_is_none():
    prompts = replace(toy_prompts(5), patch=None)
    assert summed(prompts=prompts, reference="zero")[1].patch is None
    probe = replace(toy_prompts(5), answer_ids=((),) * 5, wrong_ids=((),) * 5)
    metric = "feature:resid_post.1/3"
    assert summed(prompts=probe, metric=metric)[1].accuracy is None
    assert torch.isfinite(torch.tensor(summed(prompts=probe, metric=metric)[1].clean))

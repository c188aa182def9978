"""Norm outliers: left alone where everything goes to one value, nodes like others elsewhere."""

import dataclasses

import pytest
import torch

from circuits.ablation.faithfulness import metric_with
from circuits.analysis import Analysis
from circuits.attribution.means import mean_over
from circuits.attribution.state import batches
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits import ablation as edits
from circuits.edits.ablate import ablate
from circuits.graph import Node
from circuits.metrics.metric import logit_difference
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import capture
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from hooked_qwen.stream import is_outlier_in_prompt
from hooked_qwen.tokens import Batch
from saes.nodes import NodeSet
from tests.circuits.dense import dense, ranking_of
from tests.toys import analysis_of, full_suite, padded_on_the_left, toy_hf, toy_prompts

STREAM = Site("resid_post", 1)
LOUD = 0
"A token that no prompt has unless it is put there."


def at_the_start(batch: Batch) -> Batch:
    tokens = batch.tokens.clone()
    tokens[:, 0] = LOUD
    return Batch(tokens=tokens, mask=batch.mask)


def toy_loud(dtype=torch.float64):
    """A toy that answers one token with a thousand times the usual norm."""
    hf = toy_hf(dtype=dtype)
    with torch.no_grad():
        hf.model.embed_tokens.weight[LOUD] *= 1000
    return hook(hf, name="toy-loud")


@pytest.fixture(scope="module")
def case():
    """The loud toy, and prompts that begin with the loud token."""
    prompts = toy_prompts(n=3)
    prompts = dataclasses.replace(
        prompts, clean=at_the_start(prompts.clean), patch=at_the_start(prompts.patch)
    )
    return toy_loud(), full_suite(), prompts


def test_an_outlier_is_told_by_its_own_prompt_without_padding():
    value = torch.ones(2, 5, 3)
    value[0, 3] = 11
    value[1, :3] = 1e6
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, :3] = False
    found = is_outlier_in_prompt(value, mask)
    assert found.nonzero().tolist() == [[0, 3]]
    assert not is_outlier_in_prompt(torch.zeros(1, 4, 3), mask[:1, :4]).any()


def test_outliers_do_not_move_to_zero(case):
    model, suite, prompts = case
    (state,) = batches(model, suite, prompts, reference="zero", batch_size=3)
    error = state.errors[STREAM].change
    assert state.outlier[str(STREAM)].nonzero()[:, 1].tolist() == [0, 0, 0]
    assert not dense(state, STREAM).change[:, 0].any()
    assert not error[:, 0].any()
    assert error[:, 1:].any(-1).all()


@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_outliers_move_to_the_mean_of_their_position_only(case, positions):
    model, suite, prompts = case
    means = mean_over(model, suite, prompts.patch, by_position=positions == "keep", batch_size=2)
    (state,) = batches(model, suite, prompts, reference="mean", batch_size=3, means=means)
    nodes, features = state.errors[STREAM], dense(state, STREAM)
    error, f = nodes.error[:, 0], features.f[:, 0]
    if positions == "keep":
        error = means.error[STREAM][0].expand_as(error)
        f = means.f[str(STREAM)].dense()[0].expand_as(f)
    torch.testing.assert_close(nodes.reference[:, 0], error)
    torch.testing.assert_close(features.reference[:, 0], f)


def test_outliers_move_to_their_patch(case):
    model, suite, prompts = case
    loud = prompts.patch.tokens.clone()
    loud[:, 1] = LOUD
    prompts = dataclasses.replace(prompts, patch=Batch(tokens=loud, mask=prompts.patch.mask))
    (state,) = batches(model, suite, prompts, reference="patch", batch_size=3)
    with capture(model, {STREAM}) as seen:
        last_logits(model, prompts.patch)
    f = suite[STREAM].encode(seen[STREAM])
    error = seen[STREAM] - suite[STREAM].decode(f)
    torch.testing.assert_close(dense(state, STREAM).reference, f.dense())
    torch.testing.assert_close(state.errors[STREAM].reference, error)


def test_a_mean_over_all_tokens_leaves_outliers_out(case):
    model, suite, prompts = case
    means = mean_over(model, suite, prompts.clean, by_position=False, batch_size=2)
    (state,) = batches(model, suite, prompts, reference="zero", batch_size=3)
    error, f = state.errors[STREAM].error, dense(state, STREAM).f
    torch.testing.assert_close(means.error[STREAM][0], error[:, 1:].mean((0, 1)))
    torch.testing.assert_close(means.f[str(STREAM)].dense()[0], f[:, 1:].mean((0, 1)))


def test_outliers_among_other_tokens_stay_and_do_not_count(case):
    """One prompt has a second loud token where the others have quiet ones."""
    model, suite, prompts = case
    tokens = prompts.clean.tokens.clone()
    tokens[1, 3] = LOUD
    prompts = dataclasses.replace(prompts, clean=Batch(tokens=tokens, mask=prompts.clean.mask))
    means = mean_over(model, suite, prompts.clean, by_position=True, batch_size=2)
    (state,) = batches(model, suite, prompts, reference="mean", batch_size=3, means=means)
    nodes, f = state.errors[STREAM], dense(state, STREAM)
    assert means.of_outliers[str(STREAM)].tolist() == [True, False, False, False, False, False]
    torch.testing.assert_close(means.error[STREAM][3], nodes.error[[0, 2], 3].mean(0))
    torch.testing.assert_close(means.f[str(STREAM)].dense()[3], f.f[[0, 2], 3].mean(0))
    assert not nodes.change[1, 3].any()
    assert not f.change[1, 3].any()
    assert nodes.change[[0, 2], 3].any(-1).all()


@pytest.mark.parametrize("to", ["zero", "mean"])
def test_with_everything_ablated_outliers_are_as_they_arrive(case, to):
    """Where the prompts' outliers are known, and where they are told from what arrives."""
    model, suite, prompts = case
    only_here = type(suite)({STREAM: suite[STREAM]}, {})
    analysis = analysis_of(model, only_here, prompts, positions="sum", batch_size=2)
    everything = [Node(str(STREAM), i) for i in range(20)] + [Node(str(STREAM), "error")]
    edit = edits.Ablation(ablated=tuple(everything), to=to)
    with capture(model, {STREAM}) as seen:
        last_logits(model, prompts.clean)
    with (
        edits.apply(analysis, edit),
        capture(model, {STREAM}) as after,
    ):
        told = last_logits(model, prompts.clean)
    assert torch.equal(after[STREAM][:, 0], seen[STREAM][:, 0])
    flat = after[STREAM][:, 1:].reshape(-1, 24)
    torch.testing.assert_close(flat, flat[:1].expand_as(flat))
    known = metric_with(analysis, NodeSet.of([]), to)
    expected = analysis.metric(told, torch.arange(3))
    torch.testing.assert_close(known, expected, atol=1e-5, rtol=1e-5)


def test_loud_padding_is_told_from_loud_tokens_under_an_edit(case):
    """Padding outnumbers the tokens, and is as loud as the first of them."""
    model, suite, prompts = toy_loud(torch.float32), full_suite(torch.float32), case[2]
    wide = padded_on_the_left(prompts, pad=8)
    config = DiscoverConfig(positions="sum")
    nodes = tuple(Node(str(STREAM), f) for f in [*range(20), "error"])
    metric = logit_difference(prompts.answer_ids, prompts.wrong_ids)
    found = []
    for some in (prompts, wide):
        with edits.apply(Analysis.of(model, suite, some, config), edits.Ablation(ablated=nodes)):
            found.append(metric(last_logits(model, some.clean), torch.arange(3)))
    torch.testing.assert_close(found[1], found[0], atol=1e-3, rtol=1e-3)


def test_an_edit_says_how_many_tokens_it_spares(case):
    model, suite, prompts = case
    config = DiscoverConfig(reference="zero", positions="sum")
    everywhere = edits.Ablation(ablated=(Node(str(STREAM), 3), Node(str(STREAM), "error")))
    ranking = ranking_of(suite, [])
    assert ablate(Analysis.of(model, suite, prompts, config), everywhere, ranking)["spared"] == 6
    config = dataclasses.replace(config, positions="keep")
    at_the_sink = edits.Ablation(ablated=(Node(str(STREAM), 3, 0),))
    with pytest.raises(ValueError, match="stand only on norm outliers"):
        ablate(Analysis.of(model, suite, prompts, config), at_the_sink, ranking)
    to_mean = dataclasses.replace(at_the_sink, to="mean")
    assert ablate(Analysis.of(model, suite, prompts, config), to_mean, ranking)["spared"] == 0


def test_a_discovery_counts_the_outliers(case):
    model, suite, prompts = case
    config = DiscoverConfig(reference="zero", nodes=10, estimator="patching", batch_size=2)
    found = discover(Analysis.of(model, suite, prompts, config))
    assert found.norm_outliers["tokens"] == 18
    assert found.norm_outliers["at"][str(STREAM)] == 3
    moving = {n.position for n, _ in found.ranking if n.site == str(STREAM)}
    assert moving == {1, 2, 3, 4, 5}

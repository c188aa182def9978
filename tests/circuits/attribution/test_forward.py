"""A run that starts where something moved equals the whole run, in every family of models."""

import pytest
import torch

from circuits.attribution.forward import run_from
from circuits.attribution.state import batches
from circuits.discovery.config import DiscoverConfig
from hooked_qwen.forward import last_logits, unembed
from hooked_qwen.hooks import intervene
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.evaluation.baselines import neurons
from tests.circuits.dense import dense
from tests.hooked_qwen.test_load import toy_hybrid, toy_moe
from tests.toys import analysis_of, found_and_verified, full_suite, shared_toy, toy_hf, toy_prompts

FAMILIES = {
    "qwen2": lambda: toy_hf("qwen2", torch.float32),
    "qwen3": lambda: toy_hf("qwen3", torch.float32),
    "moe": toy_moe,
    "hybrid": toy_hybrid,
}


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def case(request):
    model = hook(FAMILIES[request.param](), name="toy")
    suite = neurons(full_suite(dtype=torch.float32))
    prompts = toy_prompts(n=3)
    (state,) = batches(model, suite, prompts, reference="patch", batch_size=3)
    return model, suite, state


@pytest.mark.parametrize("first", [0, 2, 5], ids="from position {}".format)
@pytest.mark.parametrize("site", ["attn_out.0", "mlp_out.1", "resid_post.1", "attn_out.2"])
@torch.no_grad()
def test_starting_late_changes_no_logit(case, site, first):
    model, _, state = case
    site = Site.parse(site)
    index = torch.tensor([2, 0, 0, 1])
    generator = torch.Generator().manual_seed(0)
    value = state.values[site][index].clone()
    value[:, first:] += torch.randn(value[:, first:].shape, generator=generator)
    found = unembed(model, run_from(model, state, site, value, index))[:, -1]
    with intervene(model, {site: lambda _: value}):
        expected = last_logits(model, state.clean.rows(index))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_watches_the_model_sees_whole_tensors(case):
    """Under an edit, positions may move that did not in the clean run: nothing is left out."""
    model, _, state = case
    site, early = Site("resid_post", 1), Site("mlp_out", 2)
    value = state.values[site].clone()
    value[:, 4:] += 1
    with intervene(model, {early: lambda x: x + 0.1}):
        found = unembed(model, run_from(model, state, site, value, torch.arange(3)))[:, -1]
    edits = {site: lambda _: value, early: lambda x: x + 0.1}
    with intervene(model, edits):
        expected = last_logits(model, state.clean)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_every_family_has_circuits_whose_exact_effects_are_as_verified(case):
    model, suite, _ = case
    config = DiscoverConfig(estimator="exact", nodes=12)
    prompts = toy_prompts(n=3)
    found, record = found_and_verified(model, suite, prompts, config)
    nodes = record["nodes"]
    assert nodes["n"] + nodes["tokens"]["n"] == len(found.graph) - 1 > 2
    assert record["nodes"]["slope"] == pytest.approx(1, abs=1e-4)


@pytest.fixture(scope="module")
def analysis():
    return analysis_of(shared_toy(), full_suite(), toy_prompts())


@pytest.fixture(scope="module")
def state(analysis):
    (state,) = analysis.states
    return state


@pytest.mark.parametrize(
    "site", ["embed", "attn_out.1", "mlp_out.1", "resid_post.1", "resid_post.2"]
)
def test_resuming_from_a_site_equals_the_whole_run(analysis, state, site):
    model, site = analysis.model, Site.parse(site)
    index = torch.tensor([2, 0, 0, 1])
    stream = run_from(model, state, site, state.values[site][index], index)
    logits = unembed(model, stream)[:, -1]
    torch.testing.assert_close(logits, state.logits[index], atol=1e-6, rtol=0)


def test_moving_every_node_of_a_stream_site_gives_the_patch_run(analysis, state):
    model, suite = analysis.model, analysis.suite
    site = Site("resid_post", 2)
    moved, dictionary = dense(state, site).reference, suite[site]
    value = moved @ dictionary.W_dec + dictionary.b_dec + state.errors[site].reference
    logits = unembed(model, run_from(model, state, site, value, state.rows))[:, -1]
    torch.testing.assert_close(logits, state.patch_logits, atol=1e-6, rtol=0)

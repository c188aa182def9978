"""Metrics of a site on prompts: what they read, and the values of plain hooks."""

import dataclasses

import pytest
import torch

from circuits.discovery.sparse_feature import discover
from circuits.metrics.answers import metric_of
from circuits.metrics.bound import bind_feature, bind_readout
from circuits.metrics.readout import Readout
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.suite import Suite
from tests.circuits.attribution.test_state import PAD, is_loud, loud_prompts, toy_loud
from tests.circuits.metrics.probes import (
    AT,
    DIRECTION,
    FEATURE_SITE,
    MEAN,
    PROBE,
    site_tensor,
)
from tests.toys import (
    SIZES,
    analysis_of,
    full_suite,
    padded_on_the_left,
    shared_toy,
    toy_prompts,
)


def test_a_readout_s_value_is_that_of_a_plain_hook(case):
    model, suite, prompts = case
    meta = discover(analysis_of(model, suite, prompts, metric=PROBE, steps=1)).graph.graph
    for name, batch in (("clean_metric", prompts.clean), ("patch_metric", prompts.patch)):
        x = site_tensor(batch.tokens, lambda hf: hf.model.layers[1])
        assert meta[name] == pytest.approx(float((x[:, AT] @ DIRECTION + 0.5).mean()), rel=1e-5)
    last = dataclasses.replace(PROBE, position=None)
    metric = metric_of(last, model, prompts, suite)
    x = site_tensor(prompts.clean.tokens, lambda hf: hf.model.layers[1])
    torch.testing.assert_close(metric.clean, x[:, -1] @ DIRECTION + 0.5, atol=1e-5, rtol=0)


def test_a_mean_readout_is_of_all_tokens_but_norm_outliers():
    model, prompts = toy_loud(torch.float32), loud_prompts(PAD)
    metric = metric_of(MEAN, model, prompts, full_suite())
    for side, found in ((prompts.clean, metric.clean), (prompts.patch, metric.patch)):
        with torch.no_grad(), capture(model, {MEAN.site}) as seen:
            last_logits(model, side)
        x = seen[MEAN.site]
        # Which tokens count is known from the clean run, and so the same on both sides.
        if side is prompts.clean:
            kept = side.mask & ~is_loud(x, side.mask)
        means = torch.stack([row[k].mean(0) for row, k in zip(x, kept, strict=True)])
        torch.testing.assert_close(found, means @ DIRECTION.float() + 0.5, atol=1e-4, rtol=1e-4)
    assert (kept.sum(1) < prompts.clean.mask.sum(1)).all()


def test_a_feature_s_value_is_its_activation_by_the_formula(case, feature):
    model, suite, prompts = case
    dictionary, index = suite[FEATURE_SITE], int(feature.split("/")[1].split("@")[0])
    x = site_tensor(prompts.clean.tokens, lambda hf: hf.model.layers[1].post_attention_layernorm)[
        :, AT
    ]
    pre = x @ dictionary.W_enc.T + dictionary.b_enc
    f = torch.relu(pre) * (pre >= pre.topk(5, dim=-1).values[..., -1:])
    metric = metric_of(feature, model, prompts, suite)
    torch.testing.assert_close(metric.clean, f[:, index], atol=1e-5, rtol=0)
    assert (metric.clean > 0).any()


@pytest.mark.parametrize(
    ("positions", "position", "read"), [("keep", 1, 4), ("end", 4, 4), ("keep", None, 8)]
)
def test_positions_count_from_a_prompt_s_first_token_or_the_first_column(positions, position, read):
    """Of prompts of six tokens behind three columns of padding."""
    model, suite = shared_toy(dtype=torch.float32), full_suite(torch.float32)
    prompts = padded_on_the_left(toy_prompts(n=2))
    probe = dataclasses.replace(PROBE, position=position)
    metric = bind_readout(probe, model, suite, prompts, positions)
    assert metric.weights.argmax(-1).tolist() == [read, read]
    assert metric.weights.sum(-1).tolist() == [1, 1]


def test_values_do_not_depend_on_how_many_prompts_are_run_together(case, small_chunks):
    model, suite, prompts = case
    whole = bind_readout(PROBE, model, suite, prompts, "keep")
    small_chunks("circuits.metrics.bound.BATCH", 2)
    parts = bind_readout(PROBE, model, suite, prompts, "keep")
    torch.testing.assert_close(parts.clean, whole.clean)
    torch.testing.assert_close(parts.patch, whole.patch)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("feature:mlp_out.7/1", "at no dictionary's site: the sites are attn_out.0"),
        ("feature:mlp_out.1/20", "features 0 to 19"),
        ("feature:mlp_out.1/2@6", "reads position 6, which prompt 1 does not have: .* 0 to 5"),
        ("feature:attn_out.0/2", "no dictionary lies before it"),
    ],
)
def test_a_feature_that_cannot_be_read_is_refused(case, text, message):
    with pytest.raises(ValueError, match=message):
        bind_feature(text, *case, "keep")


def test_a_direction_of_another_width_is_refused(case):
    probe = Readout(site=Site("resid_post", 1), direction=torch.ones(7))
    with pytest.raises(ValueError, match="the direction has 7 numbers, but resid_post.1 has width"):
        bind_readout(probe, *case, "keep")


def test_a_feature_of_a_dictionary_that_reads_two_sites_is_no_metric():
    site, other = Site("resid_post", 0), Site("resid_post", 1)
    spec = DictionarySpec(
        source=site, target=site, also_reads=(other,), also_writes=(other,), k=5, called="cross"
    )
    d = SIZES["hidden_size"]
    weights = {"W_enc": (20, 2 * d), "b_enc": (20,), "W_dec": (20, 2 * d), "b_dec": (2 * d,)}
    zeros = {name: torch.zeros(shape).double() for name, shape in weights.items()}
    suite = Suite({"cross": SparseDictionary(spec, zeros)}, {})
    with pytest.raises(ValueError, match="cross reads resid_post.0, resid_post.1: the activation"):
        bind_feature("feature:cross/1", shared_toy(), suite, toy_prompts(n=1), "keep")

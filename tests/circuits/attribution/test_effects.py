"""Laws that estimates of node effects obey, against exact runs of real model code."""

import dataclasses

import pytest
import torch

from circuits.ablation.exact_effects import all_nodes, exact_effects, token_nodes
from circuits.attribution.effects import (
    gradients_along_path,
    gradients_at_clean,
    node_effects,
    run_from,
)
from circuits.attribution.state import EMBED, batches
from circuits.graph import Node
from circuits.metrics.metric import logit_difference, metric_at
from hooked_qwen.forward import unembed
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from tests.conftest import full_suite, toy, toy_hf, toy_prompts, toy_suite


def one_batch(model, suite, prompts, reference="patch"):
    (state,) = batches(model, suite, prompts, reference=reference, batch_size=len(prompts))
    return state


@pytest.fixture(scope="module")
def case():
    model, suite, prompts = toy(), full_suite(), toy_prompts()
    metric = logit_difference(prompts.answer_ids, prompts.wrong_ids)
    return model, suite, prompts, metric, one_batch(model, suite, prompts)


def test_features_bias_and_error_add_up_to_the_tensor(case):
    _, suite, _, _, state = case
    for site, nodes in state.sites.items():
        total = suite[site].decode(nodes.f) + nodes.error
        torch.testing.assert_close(total, state.values[site], atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    "site", ["embed", "attn_out.1", "mlp_out.1", "resid_post.1", "resid_post.2"]
)
def test_resuming_from_a_site_equals_the_whole_run(case, site):
    model, _, _, _, state = case
    site = Site.parse(site)
    index = torch.tensor([2, 0, 0, 1])
    stream = run_from(model, state, site, state.values[site][index], index)
    logits = unembed(model, stream)[:, -1]
    torch.testing.assert_close(logits, state.logits[index], atol=1e-6, rtol=0)


def test_moving_every_node_of_a_stream_site_gives_the_patch_run(case):
    model, suite, _prompts, _metric, state = case
    site = Site("resid_post", 2)
    nodes = state.sites[site]
    value = suite[site].decode(nodes.f + nodes.f_change) + nodes.error + nodes.error_change
    logits = unembed(model, run_from(model, state, site, value, state.rows))[:, -1]
    torch.testing.assert_close(logits, state.patch_logits, atol=1e-6, rtol=0)


def plain_run(module, hf, tokens, edit=None):
    """Last logits, and what went into and came out of `module`, to whose output `edit` is added."""
    seen = {}

    def hook(_module, args, output):
        first = output[0] if isinstance(output, tuple) else output
        seen["in"], seen["out"] = (args[0] if args else None), first
        if edit is None:
            return None
        return (first + edit, *output[1:]) if isinstance(output, tuple) else first + edit

    handle = module.register_forward_hook(hook)
    logits = hf(tokens).logits[:, -1]
    handle.remove()
    return logits, seen


def plain_change(node, dictionary, clean, patch):
    """How a site's tensor changes when the node moves, from the dictionary's weights alone."""
    read = "in" if dictionary.source != dictionary.target else "out"
    pre = [torch.relu(s[read] @ dictionary.W_enc.T + dictionary.b_enc) for s in (clean, patch)]
    f = [x * (x >= x.topk(5, dim=-1).values[..., -1:]) for x in pre]
    if node.feature == "error":
        errors = [
            s["out"] - x @ dictionary.W_dec - dictionary.b_dec
            for s, x in zip((clean, patch), f, strict=True)
        ]
        change = errors[1] - errors[0]
    else:
        change = (f[1] - f[0])[..., node.feature, None] * dictionary.W_dec[node.feature]
    only = torch.zeros_like(change)
    only[:, node.position] = change[:, node.position]
    return only


@torch.no_grad()
def test_exact_effects_equal_plain_hugging_face_hooks(case):
    """The oracle recomputed with nothing of ours but the dictionaries' weights."""
    model, suite, prompts, metric, state = case
    hf = toy_hf()
    modules = {
        "resid_post": lambda layer: layer,
        "attn_out": lambda layer: layer.self_attn,
        "mlp_out": lambda layer: layer.mlp,
    }
    rows = torch.arange(len(prompts))
    right, wrong = (torch.tensor(ids)[:, 0] for ids in (prompts.answer_ids, prompts.wrong_ids))
    chosen = [n for n in all_nodes(suite, state, positions="keep") if n.position in (1, 4)][::7]
    assert len(chosen) > 20
    ours = exact_effects(model, suite, state, metric, chosen)
    for node, effect in zip(chosen, ours, strict=True):
        site = Site.parse(node.site)
        module = modules[site.kind](hf.model.layers[site.layer])
        before, clean = plain_run(module, hf, prompts.clean.tokens)
        _, patch = plain_run(module, hf, prompts.patch.tokens)
        change = plain_change(node, suite[site], clean, patch)
        after, _ = plain_run(module, hf, prompts.clean.tokens, change)
        gaps = [logits[rows, right] - logits[rows, wrong] for logits in (before, after)]
        expected = (gaps[1] - gaps[0]).double()
        torch.testing.assert_close(effect, expected, atol=1e-5, rtol=0, msg=str(node))


def test_first_order_error_is_second_order_in_the_move(case):
    """Halving every move quarters the gap between estimate and exact effect."""
    model, suite, _prompts, metric, state = case
    gradients = gradients_at_clean(model, suite, state, metric)
    nodes = [n for n in all_nodes(suite, state, positions="sum") if n.site == "resid_post.0"]

    def gap(share: float) -> torch.Tensor:
        moved = {
            site: dataclasses.replace(
                s,
                f_reference=s.f + share * s.f_change,
                error_reference=s.error + share * s.error_change,
            )
            for site, s in state.sites.items()
        }
        nearer = dataclasses.replace(state, sites=moved)
        effects = node_effects(suite, nearer, gradients, positions="sum")[Site("resid_post", 0)]
        estimate = torch.stack(
            [
                effects.error[0] if n.feature == "error" else effects.feature[0, n.feature]
                for n in nodes
            ]
        )
        return (exact_effects(model, suite, nearer, metric, nodes).sum(1) - estimate).abs().sum()

    assert float(gap(1e-2) / gap(5e-3)) == pytest.approx(4, rel=0.1)


def test_integrated_gradients_are_complete(case):
    """All nodes of a site together explain m(site at patch) - m(clean), to quadrature error."""
    model, suite, _prompts, metric, state = case
    gradients = gradients_along_path(model, suite, state, metric, steps=200)
    effects = node_effects(suite, state, gradients, positions="keep")
    for site, dictionary in suite.items():
        nodes = state.sites[site]
        value = state.values[site] + nodes.f_change @ dictionary.W_dec + nodes.error_change
        with torch.no_grad():
            stream = run_from(model, state, site, value, state.rows)
            moved = metric_at(model, stream, metric, state.rows)
        gap = float((moved - metric(state.logits, state.rows)).sum())
        total = float(effects[site].feature.sum() + effects[site].error.sum())
        assert total == pytest.approx(gap, abs=2e-3), site


def test_patching_is_exact_where_the_rest_is_linear(case):
    """A metric linear in the last stream's tensor leaves no first-order error."""
    _model, suite, _prompts, _, state = case
    site = Site("resid_post", 2)
    direction = torch.randn(24, dtype=torch.float64)
    nodes = state.sites[site]
    change = nodes.f_change @ suite[site].W_dec + nodes.error_change
    gradient = {s: torch.zeros_like(v) for s, v in state.values.items()}
    gradient[site] = direction.expand_as(change)
    effects = node_effects(suite, state, gradient, positions="keep")[site]
    total = effects.feature.sum() + effects.error.sum()
    torch.testing.assert_close(total, (change @ direction).sum(), atol=1e-10, rtol=0)


@pytest.mark.parametrize("estimator", ["patching", "ig", "exact"])
def test_padding_and_batching_change_nothing(estimator):
    """A prompt alone, and beside a longer one that pads it, has the same effects."""
    model, suite = toy(dtype=torch.float32), full_suite(torch.float32)
    prompts = toy_prompts(n=2)
    pad = 3

    def widen(batch: Batch) -> Batch:
        tokens = torch.cat([torch.zeros(2, pad, dtype=torch.long), batch.tokens], 1)
        mask = torch.cat([torch.zeros(2, pad, dtype=torch.bool), batch.mask], 1)
        return Batch(tokens=tokens, mask=mask)

    wide = dataclasses.replace(prompts, clean=widen(prompts.clean), patch=widen(prompts.patch))
    metric = logit_difference(prompts.answer_ids, prompts.wrong_ids)
    results = []
    for version, size in ((prompts, 2), (wide, 1)):
        total = 0.0
        for state in batches(model, suite, version, reference="patch", batch_size=size):
            total = total + _effects(model, suite, state, metric, estimator)
        results.append(total)
    torch.testing.assert_close(results[0], results[1], atol=1e-4, rtol=1e-3)


def _effects(model, suite, state, metric, estimator) -> torch.Tensor:
    if estimator == "exact":
        sites = [str(site) for site in suite]
        nodes = [Node(s, f) for s in sites for f in [*range(20), "error"]]
        return exact_effects(model, suite, state, metric, nodes).sum(1)
    if estimator == "ig":
        gradients = gradients_along_path(model, suite, state, metric, steps=4)
    else:
        gradients = gradients_at_clean(model, suite, state, metric)
    effects = node_effects(suite, state, gradients, positions="sum")
    return torch.cat([torch.cat([e.feature[0], e.error]) for s, e in effects.items() if s != EMBED])


def test_zero_reference_moves_everything_to_nothing(case):
    model, suite, prompts, _metric, _ = case
    state = one_batch(model, suite, dataclasses.replace(prompts, patch=None), "zero")
    for nodes in state.sites.values():
        assert torch.equal(nodes.f_change, -nodes.f)
        assert torch.equal(nodes.error_change, -nodes.error)


def test_the_patch_reference_needs_a_patch(case):
    model, suite, prompts, _, _ = case
    with pytest.raises(ValueError, match="prompts have no patch"):
        one_batch(model, suite, dataclasses.replace(prompts, patch=None))


def test_token_nodes_are_the_positions_that_differ(case):
    state = case[-1]
    assert token_nodes(state, positions="keep") == [Node("embed", "token", 1)]
    assert token_nodes(state, positions="sum") == [Node("embed", "token", None)]


def test_effect_is_positive_when_the_move_raises_the_metric():
    """The sign convention, on a feature whose decoder writes toward the right answer."""
    model, suite, prompts = toy(), toy_suite("resid_post.2"), toy_prompts(n=1)
    metric = logit_difference(prompts.answer_ids, prompts.wrong_ids)
    state = one_batch(model, suite, prompts)
    gradients = gradients_at_clean(model, suite, state, metric)
    effects = node_effects(suite, state, gradients, positions="keep")[Site("resid_post", 2)]
    change = state.sites[Site("resid_post", 2)].f_change[0, -1]
    i = int(change.abs().argmax())
    slope = float(gradients[Site("resid_post", 2)][0, -1] @ suite[Site("resid_post", 2)].W_dec[i])
    assert float(effects.feature[-1, i]) == pytest.approx(float(change[i]) * slope)
    small = dataclasses.replace(
        state,
        sites={
            s: dataclasses.replace(n, f_reference=n.f + 1e-3 * n.f_change)
            for s, n in state.sites.items()
        },
    )
    exact = exact_effects(model, suite, small, metric, [Node("resid_post.2", i, 5)])
    assert (exact[0, 0] > 0) == (effects.feature[-1, i] > 0)

"""A run cut at the dictionaries' sites: the same metric, gradients shared without loss."""

import dataclasses

import pytest
import torch

from circuits.attribution.cut_graph import cut, first_change
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import gradients_at_clean
from hooked_qwen.forward import last_logits
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from tests.circuits.attribution.test_edges import every_node, prepare, with_both
from tests.circuits.dense import dense
from tests.toys import (
    analysis_of,
    full_suite,
    shared_toy,
    toy_prompts,
    toy_suite,
)


@pytest.fixture(scope="module")
def whole():
    """One prompt by the dictionaries of every layer, and all edges among all nodes."""
    suite = full_suite()
    analysis, state, gradients = prepare(suite)
    return analysis, state, gradients, edge_weights(analysis, state, gradients, every_node(suite))


def test_cutting_the_model_changes_no_metric(whole):
    analysis, state, *_ = whole
    clean = analysis.metric(last_logits(analysis.model, state.clean), state.rows).sum()
    found = cut(analysis, state).metric
    torch.testing.assert_close(found, clean, atol=1e-12, rtol=0)


def test_features_and_error_of_a_site_share_its_gradient_without_loss(whole):
    """Cotangents of all nodes of an SAE's site add up to the site's own gradient, so the edges
    from the stream below into all of them add up to one plain vector-Jacobian product."""
    analysis, state, gradients, weights = whole
    suite = analysis.suite
    total = sum(
        w for (u, d), w in weights.items() if d.site == "attn_out.2" and u.site == "resid_post.1"
    )
    pieces = cut(analysis, state)
    lower, upper = Site("resid_post", 1), Site("attn_out", 2)
    (pulled,) = torch.autograd.grad(pieces.arrivals[upper], pieces.leaves[lower], gradients[upper])
    move = dense(state, lower).change @ suite[lower].W_dec + state.errors[lower].change
    assert total == pytest.approx(float((pulled * move).sum()), rel=1e-6)


def test_what_happens_before_the_first_change_changes_no_weight():
    """The patch differs late: positions before it are not run, and nothing is lost with them.

    A model with a hook, which here does nothing, runs all positions.
    """
    suite = toy_suite("attn_out.1", "mlp_in.1-mlp_out.1", "resid_post.0", "resid_post.1")
    late = toy_prompts(n=2)
    tokens = late.clean.tokens.clone()
    tokens[:, 4] = late.patch.tokens[:, 1]
    prompts = dataclasses.replace(late, patch=Batch(tokens=tokens, mask=late.clean.mask))
    analysis = analysis_of(shared_toy(), suite, prompts)
    (state,) = analysis.states
    gradients = gradients_at_clean(analysis, state)
    assert first_change(analysis.model, state) == 4
    found = edge_weights(analysis, state, gradients, with_both(suite))
    handle = analysis.model.blocks[2].register_forward_hook(lambda *_: None)
    try:
        assert first_change(analysis.model, state) == 0
        whole = edge_weights(analysis, state, gradients, with_both(suite))
    finally:
        handle.remove()
    assert found == pytest.approx(whole, abs=1e-10)

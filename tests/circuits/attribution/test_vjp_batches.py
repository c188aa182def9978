"""Every target and prompt on which it responds has a product, which it shares with no other."""

from collections import Counter

import pytest
import torch

from circuits.attribution.edges import edge_weights
from circuits.attribution.vjp_batches import order_of, together, vjp_batches
from circuits.graph import Node
from hooked_qwen.sites import Site
from tests.circuits.attribution.test_edges import every_node, prepare, with_both
from tests.toys import toy_suite

SITES = ("attn_out.1", "mlp_in.1-mlp_out.1", "resid_post.0", "resid_post.1")


def test_how_many_products_are_made_at_once_changes_no_weight(small_chunks):
    suite = toy_suite("attn_out.1", "mlp_in.1-mlp_out.1", "resid_post.0", "resid_post.1")
    analysis, state, gradients = prepare(suite, n=2)
    nodes = with_both(suite)
    together = edge_weights(analysis, state, gradients, nodes)
    small_chunks("circuits.attribution.vjp_batches.TENSOR_ROWS_AT_ONCE", 40)
    apart = edge_weights(analysis, state, gradients, nodes)
    assert apart == pytest.approx(together, abs=1e-10)


@pytest.fixture(scope="module")
def case():
    suite = toy_suite(*SITES)
    _, state, _ = prepare(suite, n=3)
    return suite, state, every_node(suite)


def test_targets_behind_the_same_modules_are_pulled_back_together(case):
    suite, state, nodes = case
    groups = together(suite, state, nodes, 0)
    names = [{(t.name, t.features is None) for t in group} for group in groups]
    # An error reads its own site, which of a transcoder is behind the MLP; a feature's is not.
    assert ("mlp_out.1", True) not in next(g for g in names if ("mlp_out.1", False) in g)
    told = Counter(node for group in groups for t in group for node in t.nodes)
    assert told == Counter(node for node in nodes if node.kind != "token")


@pytest.mark.parametrize("rows", [1, 40, 10**6])
def test_every_pair_is_in_one_product_which_takes_one_node_of_a_prompt(case, rows, small_chunks):
    small_chunks("circuits.attribution.vjp_batches.TENSOR_ROWS_AT_ONCE", rows)
    suite, state, nodes = case
    for group in together(suite, state, nodes, 0):
        found, used, before = [Counter() for _ in group], set(), 0
        for parts in vjp_batches(state, group, 0):
            (n,) = {part.n_vjps for part in parts}
            assert n * state.clean.tokens.numel() <= max(rows, state.clean.tokens.numel())
            for counted, part in zip(found, parts, strict=True):
                assert part.vjp.numel() == 0 or int(part.vjp.max()) < n
                pairs = list(zip(part.node.tolist(), part.prompt.tolist(), strict=True))
                counted.update(pairs)
                product = [before + v for v in part.vjp.tolist()]
                here = set(zip(product, part.prompt.tolist(), strict=True))
                assert len(here) == len(pairs)
                assert not here & used
                used |= here
            before += n
        for counted, targets in zip(found, group, strict=True):
            expected = Counter(map(tuple, targets.responds.nonzero().tolist()))
            assert counted == expected


def test_only_targets_at_positions_that_are_run_respond(case):
    suite, state, nodes = case
    for group in together(suite, state, nodes, 3):
        for targets in group:
            late = torch.tensor([node.position >= 3 for node in targets.nodes])
            assert not targets.responds[~late].any()
            if targets.features is None:
                assert targets.responds[late].all()


def test_a_node_comes_where_it_is_written_first():
    suite = toy_suite(*SITES)
    assert order_of(suite, Node("mlp_out.1", 3)) == Site("mlp_out", 1)
    assert order_of(suite, Node("resid_post.0", "error")) == Site("resid_post", 0)

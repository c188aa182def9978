"""What moving nodes adds to the model's tensors, alone and all together."""

import pytest
import torch

from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.deltas import at_positions, by_name, node_deltas, node_gains
from circuits.attribution.effects import gradients_at_clean
from circuits.graph import Node
from hooked_qwen.sites import Site
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts

SITES = ("mlp_out.0", "mlp_out.1", "resid_post.2")


@pytest.fixture(scope="module")
def case():
    analysis = analysis_of(shared_toy(), full_suite(), toy_prompts(n=2))
    (state,) = analysis.states
    return analysis.suite, state, gradients_at_clean(analysis, state)


@pytest.mark.parametrize("name", SITES)
@pytest.mark.parametrize("position", [None, 3])
def test_the_moves_of_all_nodes_of_a_site_are_its_tensor_s(case, name, position):
    suite, state, _ = case
    site, features = Site.parse(name), range(suite[name].n_features)
    total = sum(
        node_deltas(suite, state, nodes)[site].sum(0)
        for nodes in (
            [Node(name, feature, position) for feature in features],
            [Node(name, "error", position)],
        )
    )
    expected = state.tensor_change(suite, site)
    if position is not None:
        expected = expected * (torch.arange(state.n_positions) == position).unsqueeze(-1)
    torch.testing.assert_close(total, expected, atol=1e-10, rtol=0)
    assert expected.any()


@pytest.mark.parametrize(
    "nodes",
    [
        [Node("mlp_out.1", feature, at) for feature in range(20) for at in (None, 2, 4)],
        [Node("mlp_out.1", "error", at) for at in (None, 2)],
        [Node("embed", "token", at) for at in (None, 1, 2)],
    ],
    ids=["features", "errors", "tokens"],
)
def test_gains_are_the_gradient_along_each_move(case, nodes):
    suite, state, gradients = case
    (site,) = node_deltas(suite, state, nodes)
    moves = node_deltas(suite, state, nodes)[site]
    expected = (moves * gradients[site]).sum((-1, -2))
    found = node_gains(suite, state, gradients, nodes)
    torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    assert found.any()


def test_tokens_move_to_the_patch_s_embeddings(case):
    suite, state, _ = case
    moved = node_deltas(suite, state, [Node("embed", "token", at) for at in (0, 1)])[EMBED]
    assert not moved[0].any()
    assert torch.equal(moved[1, :, 1], state.embed_change[:, 1])


def test_a_node_without_a_position_is_at_all_of_them(case):
    _, state, _ = case
    here = at_positions([Node("embed", "token", 2), Node("embed", "token")], state)
    assert here[:, 0].tolist() == [[0, 0, 1, 0, 0, 0], [1] * 6]


def test_nodes_are_grouped_by_dictionary_and_errors_apart():
    a, b, e = Node("mlp_out.1", 1), Node("mlp_out.1", 2), Node("mlp_out.1", "error")
    other = Node("mlp_out.0", 1)
    found = list(by_name([a, other, e, b]))
    assert found == [([0, 3], [a, b]), ([1], [other]), ([2], [e])]

"""Prompts drawn again: the mean effect on a draw is that of the effects on each prompt."""

from dataclasses import replace

import pytest
import torch

from circuits.discovery.methods import discover_by_method
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.sparse_feature import discover
from circuits.verification.prompt_draws import drawn, drawn_shares, effects_of_each
from tests.circuits.verification.test_stability import (
    REPLACEMENT,
    SETTINGS,
    SITES,
    TRANSCODERS,
)
from tests.toys import analysis_of, shared_toy, toy_prompts, toy_suite


@pytest.fixture(scope="module")
def case():
    analysis = analysis_of(shared_toy(), toy_suite(*SITES), toy_prompts(5, 4), **SETTINGS)
    return analysis, discover(analysis)


def test_effects_of_each_prompt_add_up_to_the_ranking(case):
    analysis, found = case
    each = effects_of_each(analysis)
    mean = dict(zip(each.nodes.nodes(), each.by_prompt.mean(0).tolist(), strict=True))
    ranked = dict(found.ranking.inner())
    assert mean.keys() == ranked.keys()
    assert [mean[node] for node in ranked] == pytest.approx(list(ranked.values()), abs=1e-9)


def test_a_draw_weighs_prompts_as_discovering_on_it_does(case):
    analysis, _ = case
    rows = torch.tensor([0, 3, 3, 1, 3])
    each = effects_of_each(analysis)
    ranking, _ = rank_nodes(analysis.on(drawn(analysis.prompts, rows)))
    share = torch.bincount(rows, minlength=5).double() / 5
    mean = dict(zip(each.nodes.nodes(), (share @ each.by_prompt).tolist(), strict=True))
    for node, effect in ranking.inner():
        assert mean[node] == pytest.approx(effect, abs=1e-9)


def test_so_it_is_of_replacement_graphs():
    """Effects of a draw are those that discovering on it finds; layer 1 has an error alone."""
    analysis = analysis_of(shared_toy(), toy_suite(*TRANSCODERS), toy_prompts(4, 4), **REPLACEMENT)
    each, rows = effects_of_each(analysis), torch.tensor([0, 3, 3, 1])
    share = torch.bincount(rows, minlength=4).double() / 4
    mean = dict(zip(each.nodes.nodes(), (share @ each.by_prompt).tolist(), strict=True))
    ranking = discover_by_method(analysis.on(drawn(analysis.prompts, rows))).ranking.inner()
    for node, effect in ranking:
        assert mean[node] == pytest.approx(effect, abs=1e-9)
    assert any(node.site == "mlp_out.1" for node in ranking.nodes())


def test_each_draw_has_as_many_prompts_and_the_same_seed_the_same():
    shares = drawn_shares(5, 400, seed=3)
    assert torch.equal(shares, drawn_shares(5, 400, seed=3))
    assert not torch.equal(shares, drawn_shares(5, 400, seed=4))
    torch.testing.assert_close(shares.sum(1), torch.ones(400).double())
    assert (shares == 0).any(1).float().mean() > 0.9
    torch.testing.assert_close(shares.mean(0), torch.full((5,), 0.2).double(), atol=0.03, rtol=0)


def test_what_is_drawn_keeps_all_that_is_known_of_each_prompt():
    prompts = replace(
        toy_prompts(3, 4),
        own=frozenset({2}),
        answer_weights=((1.0,), (0.5,), (0.25,)),
        answer_texts=(("a",), ("b",), ("c",)),
    )
    found = drawn(prompts, torch.tensor([2, 0, 2]))
    assert found.own == {0, 2}
    assert found.answer_weights == ((0.25,), (1.0,), (0.25,))
    assert found.answer_texts == (("c",), ("a",), ("c",))
    assert found.answer_ids == tuple(prompts.answer_ids[i] for i in (2, 0, 2))
    assert torch.equal(found.clean.tokens, prompts.clean.tokens[[2, 0, 2]])
    assert torch.equal(found.patch.tokens, prompts.patch.tokens[[2, 0, 2]])
    assert drawn(replace(prompts, patch=None), torch.tensor([1])).patch is None

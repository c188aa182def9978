"""Passes that checks of a run make, counted one kind at a time."""

from dataclasses import replace

import pytest

from circuits.discovery.config import DiscoverConfig
from circuits.runs.needs import DiscoverySize
from circuits.runs.needs_passes import PassCounter, Passes
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from tests.circuits.runs.toy_shapes import shapes_of
from tests.toys import SIZES

LAYERS, TOKENS = SIZES["num_hidden_layers"], 6


@pytest.fixture(scope="module")
def counter(suite, cost):
    config = DiscoverConfig(estimator="patching", batch_size=3)
    task = DiscoverySize(prompts=7, tokens=TOKENS, first=1, config=config)
    return PassCounter(cost, suite, shapes_of(suite), task)


def test_passes_add_up_under_the_name_of_the_first():
    one, other = Passes(name="a", count=1, mlps=2, forward=5), Passes(name="b", count=2, encoded=3)
    assert one + other == Passes(name="a", count=3, mlps=2, forward=5, encoded=3)


def test_every_prompt_is_in_one_batch_and_goes_through_every_layer(counter):
    assert counter.batches == [3, 3, 1]
    once, thrice = counter.whole("a"), counter.whole("a", 3)
    assert (once.count, once.mlps, once.tokens) == (3, 3 * LAYERS, 7 * TOKENS * LAYERS)
    assert (thrice.count, thrice.tokens) == (3 * once.count, 3 * once.tokens)
    assert thrice.forward == pytest.approx(3 * once.forward)


def test_a_pass_from_a_later_site_is_of_fewer_layers(counter):
    sites = [Site("embed"), *(Site("resid_post", layer) for layer in range(LAYERS))]
    found = [counter.behind(2, site, TOKENS) for site in sites]
    assert [one.mlps for one in found] == [LAYERS - i for i in range(LAYERS + 1)]
    assert [one.forward for one in found] == sorted((x.forward for x in found), reverse=True)
    assert (found[-1].tokens, found[-1].forward) == (0, 0)
    # The last MLP runs at the last position alone; where there are hooks, at all of them.
    assert found[-2].tokens == 2
    assert counter.behind(2, sites[-2], TOKENS, whole=True).tokens == 2 * TOKENS
    attention = counter.behind(2, Site("attn_out", LAYERS - 1), TOKENS)
    assert (attention.mlps, attention.tokens) == (1, 2 * TOKENS)


def test_circuits_side_by_side_take_as_many_tokens_as_apart(counter):
    found = counter.circuits("faithfulness", 5, 1)
    assert found.tokens == 5 * 7 * TOKENS * (LAYERS - 1)
    assert found.edited == 5 * 7 * TOKENS * counter.features
    assert counter.circuits("faithfulness", 5, 1, features=3).edited == 5 * 7 * TOKENS * 3


def test_groups_begin_at_their_first_site_and_set_its_dictionaries(counter):
    late, early = Node("resid_post.2", 3), Node("attn_out.1", "error", 2)
    assert counter.groups("groups", [[late]]).mlps == 3
    both = counter.groups("groups", [[late, early]])
    assert both.mlps == 3 * 2
    assert both.edited == 7 * TOKENS * counter.features_at(
        [Site.parse(late.site), Site("attn_out", 1)]
    )
    assert counter.features_at([Site("mlp_out", 0)]) == 20
    assert set(counter.at([Site("mlp_out", 0)]).suite) == {"mlp_out.0"}


def test_batches_that_are_kept_are_run_once_and_others_for_each_loop(counter):
    assert [counter.kept(10, memory) for memory in (None, 1.0, 4e-8 * 2, 0.0)] == [3, 3, 2, 0]
    kept, again = (counter.states("states", 10, memory, 4).count for memory in (None, 0.0))
    assert (kept, again) == (2 * 3, 4 * 2 * 3)
    # The batch that was asked for last is there still.
    assert counter.states("states", 10, 4e-8 * 2, 4).count == kept


def test_a_gradient_of_every_site_is_counted_by_the_points_of_its_path(counter):
    sites, config = list(counter.suite.writes), counter.task.config
    once = counter.gradients("estimates", "patching", sites)
    assert (once.forward, once.backward) == (0, 0)
    assert once.both > 0
    one, more = (
        replace(counter, task=replace(counter.task, config=replace(config, steps=steps)))
        for steps in (1, 4)
    )
    assert more.gradients("a", "ig", sites).tokens == 4 * one.gradients("a", "ig", sites).tokens
    assert once.tokens < one.gradients("a", "ig", sites).tokens
    assert once.edited == 0
    assert counter.gradients("a", "patching", sites, under=5).edited == 5 * 7 * TOKENS

"""Prompts are opened within the memory there is, without padding and without other dictionaries."""

import pytest
import torch

from circuits.discovery.replaced_prompts import Budget, ReplacedPrompts
from circuits.discovery.replacement import discover_replacement
from saes.suite import Suite
from tests.circuits.discovery.replaced import SITES, analysis, graph_of, text_of
from tests.toys import (
    padded_on_the_left,
    shared_toy,
    toy_suite,
)
from transcoders.sources import FEATURE


def test_padding_on_the_left_changes_nothing(prompts):
    model, suite = shared_toy(dtype=torch.float32), toy_suite(*SITES, dtype=torch.float32)
    plain = graph_of(prompts, suite, model, positions="end")
    padded = graph_of(padded_on_the_left(prompts), suite, model, positions="end")
    moved = {n._replace(position=n.position + 3) if n.position is not None else n for n in plain}
    assert moved == set(padded)


@pytest.mark.parametrize("nodes", [15, None])
def test_batch_sizes_and_room_give_the_same_bytes(prompts, nodes):
    texts = {
        text_of(graph_of(prompts, nodes=nodes, batch_size=batch_size))
        for batch_size in (1, 64, 512)
    }
    # In 3 KB a sweep takes one target at a time.
    suite = Suite(toy_suite(*SITES), {}, memory=5e-5)
    texts.add(text_of(graph_of(prompts, suite, nodes=nodes)))
    assert len(texts) == 1


def test_no_more_edges_are_there_than_one_sweep_may_have(one):
    """A quarter of a quarter of the memory, in bytes."""
    memory, room = 5e-5, 3125
    (opened,) = ReplacedPrompts.of_transcoders(analysis(one))
    model = opened.model
    features = (model.sources.kind == FEATURE).nonzero().squeeze(-1)
    groups = list(model.grouped(features, room))
    assert torch.cat(groups).sort().values.tolist() == features.tolist()
    sizes = [(model.inputs(model.features(some)).weight.nbytes, len(some)) for some in groups]
    assert all(size <= room or targets == 1 for size, targets in sizes)
    assert max(targets for _, targets in sizes) > 1
    sweeps = []
    for most in (None, memory):
        told = []
        asked = analysis(one, Suite(toy_suite(*SITES), {}, memory=most), nodes=10)
        discover_replacement(asked, report=lambda what, *_, to=told: to.append(what))
        sweeps.append(told.count("influence"))
    assert sweeps[1] > 2 * sweeps[0]


def test_saes_of_a_suite_are_left_aside(one):
    suite = toy_suite(*SITES, "resid_post.1", "attn_out.2")
    graph = graph_of(one, suite)
    assert {n.site for n in graph if n.kind == "feature"} == {f"mlp_out.{i}" for i in range(3)}
    assert text_of(graph) == text_of(graph_of(one))


def test_a_budget_takes_no_more_than_there_is_room_for():
    for room in (10.0**4, 10.0**8, 10.0**12):
        budget = Budget.of(room, target=1000)
        assert budget.rows + budget.patterns + 8 * budget.sweep <= room
    # Where there is room for all, a sweep has several targets however large one is.
    assert Budget.of(float("inf"), target=10**9).sweep == 8 * 10**9


def test_a_single_prompt_is_opened_once(prompts, one):
    alone, several = ReplacedPrompts(analysis(one)), ReplacedPrompts(analysis(prompts))
    assert next(iter(alone)) is next(iter(alone))
    assert next(iter(several)) is not next(iter(several))
    assert [opened.number for opened in several] == [0, 1, 2]

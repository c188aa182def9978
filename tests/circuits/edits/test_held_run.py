"""Passes of one prompt in many rows: held where asked, in as many parts as it takes."""

import pytest
import torch

from circuits.edits.held_run import (
    ROWS_AT_ONCE,
    TOKENS_AT_ONCE,
    Fired,
    adding,
    has_transcoders,
    held_edits,
    rows_at_once,
    run_held,
)
from circuits.graph import Node
from hooked_qwen.sites import Site
from saes.edit import Edit, Operation
from tests.circuits.edits.test_interventions import opened
from tests.toys import toy_suite
from transcoders.interventions import THE_MODEL, Mode


@pytest.fixture(scope="module")
def analysis():
    return opened(2)


def edit_of(node, do="zero", **more):
    return Edit(operations=(Operation(node=Node.parse(node), do=do, **more),))


def test_a_pass_takes_no_more_rows_than_there_is_room_for(analysis, small_chunks):
    assert rows_at_once(analysis, 0) == min(ROWS_AT_ONCE, TOKENS_AT_ONCE // 6)
    small_chunks("circuits.edits.held_run.TOKENS_AT_ONCE", 20)
    assert rows_at_once(analysis, 0) == 3
    small_chunks("circuits.edits.held_run.TOKENS_AT_ONCE", 1)
    assert rows_at_once(analysis, 0) == 1


@pytest.mark.parametrize("mode", [THE_MODEL, Mode(attention="frozen", mlps="linear")])
def test_edits_in_parts_are_edits_together(analysis, small_chunks, mode):
    edits = [edit_of(f"mlp_out.{layer}/error") for layer in (0, 1, 2)]
    together = held_edits(analysis, 1, edits, mode)
    assert together.metric.shape == (4,)
    torch.testing.assert_close(together.change, (together.metric[1:] - together.metric[0]).double())
    small_chunks("circuits.edits.held_run.ROWS_AT_ONCE", 2)
    apart = held_edits(analysis, 1, edits, mode)
    torch.testing.assert_close(apart.metric, together.metric)
    torch.testing.assert_close(apart.logits, together.logits)


def test_in_the_linear_model_what_is_added_twice_does_twice_as_much(analysis):
    site, linear = Site("mlp_out", 0), Mode(attention="frozen", mlps="linear")
    delta = torch.zeros(3, 6, 24, dtype=torch.float64)
    delta[1, 2] = torch.linspace(-0.1, 0.1, 24)
    delta[2] = 2 * delta[1]
    run = run_held(analysis, 0, 3, linear, adding(analysis, {site: delta}), reads=[site])
    once, twice = run.change
    assert twice == pytest.approx(2 * float(once), rel=1e-9)
    assert once != 0
    assert run.seen[site].shape == (3, 6, 24)


def test_an_edit_has_fired_where_it_did_in_any_prompt(analysis):
    off = next(
        i
        for i in range(20)
        if not analysis.states[0].features["mlp_out.0"].f.dense()[:, 2, i].any()
    )
    edits = [edit_of("mlp_out.1/error"), edit_of(f"mlp_out.0/{off}@2")]
    fired = Fired(edits)
    for number in range(2):
        held_edits(analysis, number, edits, THE_MODEL, fired)
    with pytest.raises(RuntimeError, match=f"mlp_out.0/{off}@2, to zero at the positions all, was"):
        fired.require(analysis.model.tokenizer)
    only = Fired(edits[:1])
    held_edits(analysis, 0, edits[:1], THE_MODEL, only)
    only.require(analysis.model.tokenizer)


def test_mlps_can_be_replaced_where_there_are_transcoders(analysis):
    assert has_transcoders(analysis)
    others = opened(1, toy_suite("mlp_out.1"), method="sparse-feature", nodes=5)
    assert not has_transcoders(others)

"""Controls of an edit do as much, at the same sites, to others."""

from collections import Counter

import pytest
import torch

from circuits.edits.edit_controls import (
    ALIKE,
    DIRECTION,
    NEURONS,
    RANDOM,
    controls_of,
    features_of,
)
from circuits.edits.rerun import Edited
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.sites import Site
from saes.edit import Edit, Operation
from tests.circuits.edits.test_side_effects import BLOCKS, EDIT, SITES, edited_toy


@pytest.fixture(scope="module")
def opened():
    return edited_toy()


def test_controls_do_as_much_at_the_same_sites_to_others(opened):
    edited, activity = opened
    found = controls_of(edited, activity, draws=3, seed=4)
    assert list(found) == [RANDOM, ALIKE, NEURONS, DIRECTION]
    own = {op.node for op in EDIT.operations}
    for name in (RANDOM, ALIKE, NEURONS):
        assert len(found[name]) == 3
        for control in found[name]:
            nodes = [op.node for op in control.edit.operations]
            assert len(set(nodes)) == len(nodes)
            assert Counter(n.site for n in nodes) == Counter(n.site for n in own)
            told = [(op.do, op.value, op.positions) for op in control.edit.operations]
            assert told == [(op.do, op.value, op.positions) for op in EDIT.operations]
            if name != NEURONS:
                assert own.isdisjoint(nodes)
                assert all(activity.features[n.site][int(n.feature)] != 0 for n in nodes)
    assert controls_of(edited, activity, draws=3, seed=4)[RANDOM][0].edit == found[RANDOM][0].edit
    assert controls_of(edited, activity, draws=3, seed=5)[RANDOM][0].edit != found[RANDOM][0].edit


def test_a_control_of_like_activation_and_norm_is_nearer_than_a_random_one(opened):
    edited, activity = opened
    found = controls_of(edited, activity, draws=12, seed=1)

    def distance(control):
        total = 0.0
        for op, own in zip(control.edit.operations, EDIT.operations, strict=True):
            mean = activity.features[op.node.site].clamp(min=1e-3).log()
            norm = edited.suite[op.node.site].W_dec.norm(dim=1).log()
            for x in (mean, norm):
                total += float((x[int(op.node.feature)] - x[int(own.node.feature)]).abs() / x.std())
        return total

    near, far = (sum(map(distance, found[name])) for name in (ALIKE, RANDOM))
    assert near < 0.8 * far


def test_in_a_random_direction_every_token_moves_as_far(opened):
    edited, activity = opened
    control = controls_of(edited, activity, draws=1)[DIRECTION][0]
    site, moves = Site.parse(SITES[0]), []
    for one in (edited, control):
        with torch.no_grad(), one.applied(), capture(edited.model, {site}) as after:
            edited.model(BLOCKS)
        with torch.no_grad(), capture(edited.model, {site}) as before:
            edited.model(BLOCKS)
        moves.append(after[site] - before[site])
    norms = [move.norm(dim=-1) for move in moves]
    torch.testing.assert_close(*norms)
    assert torch.linalg.matrix_rank(moves[1].flatten(0, 1)) == 1
    cosine = torch.cosine_similarity(moves[0].flatten(0, 1), moves[1].flatten(0, 1))
    assert cosine.abs().max() < 0.9


def test_where_all_but_some_are_edited_as_many_others_are_left_out(opened):
    edited, activity = opened
    out = (Node(SITES[1], 2), Node(SITES[1], 7, 3))
    edit = Edit(operations=(Operation(node=Node(SITES[1], EVERY), do="zero", besides=out),))
    assert features_of(edit) == {SITES[1]: (2, 7)}
    held = Edited(model=edited.model, suite=edited.suite, edit=edit)
    (control,) = controls_of(held, activity, draws=1)[RANDOM]
    (op,) = control.edit.operations
    assert op.node == Node(SITES[1], EVERY)
    assert [n.position for n in op.besides] == [None, 3]
    assert not {n.feature for n in op.besides} & {2, 7}

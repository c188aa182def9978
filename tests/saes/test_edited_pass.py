"""What the operations of an edit make of one pass: at which tokens, of which features, in order."""

from dataclasses import replace

import pytest
import torch

from hooked_qwen.nodes import EVERY, Node
from hooked_qwen.sites import Site
from saes.edit import Condition, Edit, Operation
from saes.edited_pass import EditedPass, of_error
from tests.toys import toy_suite

SITE, EARLIER = "resid_post.1", "mlp_out.0"
SUITE = toy_suite(SITE, EARLIER)
# The second text has one token of padding before it, and a prompt of two tokens.
TOKENS = torch.tensor([[0, 1, 2, 3], [-1, 0, 1, 2]])
LENGTHS = torch.tensor([[3], [2]])


def drawn(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 4, 24, generator=generator, dtype=torch.float64)


ARRIVING = {Site.parse(SITE): drawn(0), Site.parse(EARLIER): drawn(1)}


def edited(*operations, patch=None, **means):
    edit = Edit(operations=operations, means={Node.parse(k): v for k, v in means.items()})
    return EditedPass(
        suite=SUITE, edit=edit, patch=patch, tokens=TOKENS, lengths=LENGTHS, arriving=ARRIVING
    )


def zero(feature=3, **more):
    return Operation(node=Node(SITE, feature), do="zero", **more)


@pytest.mark.parametrize(
    ("positions", "expected"),
    [
        ("all", [[1, 1, 1, 1], [0, 1, 1, 1]]),
        ("prompt", [[1, 1, 1, 0], [0, 1, 1, 0]]),
        ("generated", [[0, 0, 0, 1], [0, 0, 0, 1]]),
        ("last", [[0, 0, 1, 1], [0, 0, 1, 1]]),
        ((0, 3), [[1, 0, 0, 1], [0, 1, 0, 0]]),
    ],
)
def test_positions_are_counted_in_each_text(positions, expected):
    op = zero(positions=positions)
    assert edited(op).at(op).int().tolist() == expected


def test_a_condition_holds_where_its_feature_is_on():
    f = SUITE[EARLIER].encode(ARRIVING[Site.parse(EARLIER)]).dense()
    feature = int((f > 0).sum((0, 1)).argmax())
    op = zero(when=Condition(node=Node(EARLIER, feature), above=0.5))
    found = edited(op).at(op)
    assert torch.equal(found, (f[..., feature] > 0.5) & (TOKENS >= 0))
    assert found.any()


def test_norms_of_later_sites_count_for_nothing():
    norms = {site: x.norm(dim=-1) for site, x in ARRIVING.items()}
    limits = tuple((site, float(n.median())) for site, n in norms.items())
    op = zero(norm_below=limits)
    under = {site: norms[site] <= limit for site, limit in limits}
    there = TOKENS >= 0
    late, early = Site.parse(SITE), Site.parse(EARLIER)
    done = edited(op)
    assert torch.equal(done.at(op, early), there & under[early])
    assert torch.equal(done.at(op, late), there & under[early] & under[late])
    assert torch.equal(done.at(op), done.at(op, late))


def test_a_feature_becomes_what_its_operations_say_in_their_order():
    done = edited(
        Operation(node=Node(SITE, 3), do="add", value=1.0),
        Operation(node=Node(SITE, 3), do="scale", value=2.0),
        Operation(node=Node(SITE, 5, 2), do="set", value=7.0),
        Operation(node=Node(SITE, 5), do="mean", positions="generated"),
        **{f"{SITE}/5": 0.25},
    )
    plan = done.plan(SITE)
    assert plan.named == (3, 5)
    before = drawn(2)[..., :2].abs()
    expected = before.clone()
    expected[..., 0] = (before[..., 0] + 1) * 2
    expected[..., 1][TOKENS == 2] = 7
    expected[..., 1][TOKENS >= LENGTHS] = 0.25
    expected[TOKENS < 0] = before[TOKENS < 0]
    torch.testing.assert_close(done.after(plan, plan.rows, before), expected)
    assert done.plan(EARLIER) is None
    assert done.plan(SITE) is plan


def test_what_is_done_to_every_feature_leaves_out_those_excepted():
    op = Operation(node=Node(SITE, EVERY), do="zero", besides=(Node(SITE, 4), Node(SITE, 6, 1)))
    done = edited(op)
    plan = done.plan(SITE)
    before = torch.ones(2, 4, 20)
    after = done.after(plan, torch.arange(20), before)
    kept = after.bool() & (TOKENS >= 0).unsqueeze(-1)
    assert kept[..., 4].equal(TOKENS >= 0)
    assert kept[..., 6].equal(TOKENS == 1)
    assert not kept[..., [i for i in range(20) if i not in (4, 6)]].any()


def test_operations_on_an_error_are_of_its_site_and_move_it_in_order():
    at_error = Operation(node=Node(SITE, "error"), do="scale", value=3.0)
    ops = (
        at_error,
        zero(),
        replace(at_error, node=Node(EARLIER, "error")),
        replace(at_error, do="patch", value=None, positions=(2,)),
    )
    there = drawn(4)
    done = edited(*ops, patch=lambda node: there)
    site = Site.parse(SITE)
    assert of_error(done.edit, site) == [ops[0], ops[3]]
    error = drawn(3)
    expected = error * 3
    expected[TOKENS < 0] = error[TOKENS < 0]
    expected[TOKENS == 2] = there[TOKENS == 2]
    torch.testing.assert_close(done.error_after(site, error), expected)


def test_an_error_is_left_alone_at_positions_that_are_excepted():
    node = Node(SITE, "error")
    op = Operation(node=node, do="zero", besides=(node._replace(position=1),))
    assert torch.equal(edited(op).error_where(op), (TOKENS >= 0) & (TOKENS != 1))
    at = Operation(node=node._replace(position=1), do="zero")
    assert torch.equal(edited(at).error_where(at), TOKENS == 1)

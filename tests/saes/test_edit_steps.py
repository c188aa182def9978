"""Operations grouped into steps do what they do one by one, whatever their order."""

import random

import pytest
import torch

from hooked_qwen.nodes import EVERY, Node
from saes.edit import Edit, Operation, applied
from saes.operations import OPERATIONS
from tests.toys import shared_toy, toy_suite

SITE = "resid_post.1"
TOKENS = torch.tensor([[5, 9, 11, 2, 30], [3, 8, 2, 40, 7]])
VALUES = {"set": (4.0, 1.0), "scale": (-2.0, 0.5), "add": (3.0, -1.5), "clamp": ((0.5, 1.5),)}


def drawn(rng, *, kinds, n=14):
    """Operations on few features, so that they meet; of every one now and then."""
    found = []
    for _ in range(n):
        do = rng.choice(kinds)
        every = rng.random() < 0.15
        node = (
            Node(SITE, EVERY) if every else Node(SITE, rng.randrange(4), rng.choice([None, 1, 3]))
        )
        found.append(
            Operation(
                node=node,
                do=do,
                value=rng.choice(VALUES.get(do, (None,))),
                positions=rng.choice(["all", "last", (0, 3)]),
                besides=(Node(SITE, 2), Node(SITE, 5, 3)) if every else (),
            )
        )
    return found


def mean_of(node):
    if node.feature == EVERY:
        return torch.linspace(0, 3, 20)
    return 0.5 * int(node.feature) + (node.position or 0)


def one_by_one(d, x, operations):
    """The site's tensor with the operations done one after another, by a loop over tokens."""
    f = d.encode(x).dense()
    new = f.clone()
    for op in operations:
        for at in range(x.shape[1]):
            if op.positions == "last" and at != x.shape[1] - 1:
                continue
            if isinstance(op.positions, tuple) and at not in op.positions:
                continue
            if op.node.position not in (None, at):
                continue
            out = {n.feature for n in op.besides if n.position in (None, at)}
            chosen = [i for i in range(20) if op.node.feature in (EVERY, i) and i not in out]
            to = None
            if OPERATIONS[op.do].needs:
                to = torch.as_tensor(mean_of(op.node), dtype=x.dtype)
                to = to[chosen] if op.node.feature == EVERY else to
            own = new[:, at, chosen]
            new[:, at, chosen] = OPERATIONS[op.do].become(own, op.value, to)
    return x + (new - f) @ d.W_dec


@pytest.mark.parametrize(
    "kinds", [("zero", "scale"), ("zero", "mean", "set", "scale", "add", "clamp")]
)
@pytest.mark.parametrize("seed", range(4))
def test_operations_together_are_what_they_are_one_by_one(kinds, seed):
    model, suite = shared_toy(), toy_suite(SITE)
    operations = drawn(random.Random(seed), kinds=kinds)
    means = {op.node: mean_of(op.node) for op in operations}
    with torch.no_grad():
        edit = Edit(operations=tuple(operations), means=means)
        with applied(model, suite, edit, must_fire=False):
            logits = model(TOKENS)
        handle = model.blocks[1].register_forward_hook(
            lambda m, a, out: one_by_one(suite[SITE], out, operations)
        )
        expected = model(TOKENS)
        handle.remove()
        assert not torch.allclose(expected, model(TOKENS), atol=1e-2)
    torch.testing.assert_close(logits, expected, atol=1e-8, rtol=1e-8)


def test_in_many_passes_an_edit_that_changes_nothing_raises_and_says_what_came_nearest():
    model, suite = shared_toy(), toy_suite(SITE)
    with torch.no_grad():
        seen = {}
        handle = model.blocks[1].register_forward_hook(lambda m, a, out: seen.update(x=out))
        model(TOKENS[:1])
        handle.remove()
        f = suite[SITE].encode(seen["x"]).dense()[0]
    off = int((f.amax(0) == 0).nonzero()[0])
    edit = Edit(operations=(Operation(node=Node(SITE, off), do="zero"),))

    def run():
        with torch.no_grad(), applied(model, suite, edit):
            for _ in range(20):
                model(TOKENS[:1])

    with pytest.raises(RuntimeError, match=f"{SITE}/{off}, to zero, was off at every token"):
        run()


def test_a_redirected_edit_moves_a_site_by_what_it_is_told():
    model, suite = shared_toy(), toy_suite(SITE)
    d = suite[SITE]
    edit = Edit(operations=(Operation(node=Node(SITE, 5), do="set", value=4.0),))
    with torch.no_grad():
        with applied(model, suite, edit, redirect=lambda site, move: -2 * move):
            logits = model(TOKENS)
        handle = model.blocks[1].register_forward_hook(
            lambda m, a, x: x - 2 * (4.0 - d.encode(x).dense()[..., 5:6]) * d.W_dec[5]
        )
        expected = model(TOKENS)
        handle.remove()
    torch.testing.assert_close(logits, expected, atol=1e-8, rtol=1e-8)


def test_what_is_skipped_where_no_named_feature_has_a_slot_changes_nothing():
    # One text has few slots, which are looked through; all of them together have too many.
    model, suite = shared_toy(), toy_suite(SITE)
    texts = torch.randint(50, (40, 5), generator=torch.Generator().manual_seed(0))
    edit = Edit(operations=tuple(Operation(node=Node(SITE, i), do="zero") for i in (3, 4)))
    skipped = 0
    with torch.no_grad():
        with applied(model, suite, edit):
            together = model(texts)
        for text, expected in zip(texts, together, strict=True):
            with applied(model, suite, edit, must_fire=False):
                found = model(text[None])[0]
            skipped += int(torch.equal(found, model(text[None])[0]))
            torch.testing.assert_close(found, expected, atol=1e-10, rtol=1e-10)
    assert 0 < skipped < len(texts)

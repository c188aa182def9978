"""An edit that does nothing says so, and what came nearest."""

import pytest
import torch

from hooked_qwen.nodes import Node
from saes.edit import Condition, Edit, Operation, applied
from saes.identity import suite_hash
from saes.suite import Suite
from tests.saes.test_edit_against_hooks import SITE, TOKENS, encoded
from tests.toys import random_dictionary, speaking_toy, toy_suite


@pytest.fixture(scope="module")
def case():
    model = speaking_toy(dtype=torch.float32)
    suite = toy_suite(SITE, dtype=torch.float32)
    seen = {}
    layer = model.original_model.model.layers[1]
    handle = layer.register_forward_hook(lambda m, a, x: seen.update(x=x))
    with torch.no_grad():
        model.original_model(TOKENS)
    handle.remove()
    return model, suite, encoded(suite[SITE], seen["x"])[0]


def run(model, suite, edit, **options):
    with applied(model, suite, edit, **options), torch.no_grad():
        return model.original_model(TOKENS).logits


def test_a_condition_that_never_holds_tells_the_largest_activation_and_where(case):
    model, suite, f = case
    at, feature = divmod(int(f.argmax()), f.shape[1])
    when = Condition(node=Node(SITE, feature), above=1000.0)
    edit = Edit(operations=(Operation(node=Node(SITE, 2), do="add", value=1.0, when=when),))
    word = model.tokenizer.decode([int(TOKENS[0, at])])
    told = rf"wants {SITE}/{feature} above 1000, which was {f.max():.3g} at most, at token {at}"
    with pytest.raises(RuntimeError, match=f"fired on nothing.*{told} .{word!r}."):
        run(model, suite, edit)


def test_a_feature_that_is_off_is_named(case):
    model, suite, f = case
    off = int((f == 0).all(0).nonzero()[0])
    edit = Edit(operations=(Operation(node=Node(SITE, off), do="zero"),))
    with pytest.raises(RuntimeError, match=rf"{SITE}/{off}, to zero, was off at every token"):
        run(model, suite, edit)
    with applied(model, suite, edit, must_fire=False), torch.no_grad():
        assert torch.isfinite(model.original_model(TOKENS).logits).all()


def test_a_feature_that_is_on_elsewhere_is_told_where(case):
    model, suite, f = case
    on = (f > 0).float()
    feature = int(((on.sum(0) > 0) & (on[0] == 0)).nonzero()[0])
    at = int(f[:, feature].argmax())
    edit = Edit(operations=(Operation(node=Node(SITE, feature), do="zero", positions=(0,)),))
    with pytest.raises(RuntimeError, match=rf"positions \[0\], was .* at most, at token {at} "):
        run(model, suite, edit)


def test_one_feature_that_is_off_among_others_is_no_matter(case):
    model, suite, f = case
    off, on = int((f == 0).all(0).nonzero()[0]), int(f.sum(0).argmax())
    both = tuple(Operation(node=Node(SITE, i), do="zero") for i in (off, on))
    assert torch.equal(
        run(model, suite, Edit(operations=both)), run(model, suite, Edit(operations=both[1:]))
    )


def test_adding_nothing_changes_no_bit_and_is_no_error(case):
    model, suite, _ = case
    with torch.no_grad():
        plain = model.original_model(TOKENS).logits
    edit = Edit(operations=(Operation(node=Node(SITE, 0), do="add", value=0.0),))
    assert torch.equal(run(model, suite, edit), plain)


def test_an_edit_of_other_dictionaries_is_refused_by_hash_naming_both(case):
    model, suite, _ = case
    operation = Operation(node=Node(SITE, 0), do="add", value=1.0)
    edit = Edit(operations=(operation,), suite=suite_hash(suite), suite_name="mine")
    run(model, suite, edit)
    spec = suite[SITE].spec
    other = Suite({spec.target: random_dictionary(spec, seed=5, dtype=torch.float32)}, {})
    told = rf"mine \({suite_hash(suite)}\), and these are 1 dictionary .*{suite_hash(other)}"
    with pytest.raises(ValueError, match=told):
        run(model, other, edit)
    with pytest.raises(ValueError, match="different dictionaries cannot be edited together"):
        edit.then(Edit(operations=(operation,), suite=suite_hash(other)))


def test_two_means_of_one_node_are_refused():
    node = Node(SITE, 1)
    one, two = (
        Edit(operations=(Operation(node=node, do="mean"),), means={node: mean})
        for mean in (0.5, 0.75)
    )
    assert len(one.then(one).operations) == 2
    with pytest.raises(ValueError, match="different means of resid_post.1/1"):
        one.then(two)

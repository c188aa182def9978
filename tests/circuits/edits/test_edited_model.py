"""A model under an edit, and as it was after."""

import pytest
import torch

from circuits.edits.edited_model import Edited
from hooked_qwen.nodes import Node
from saes.edit import Edit, Operation
from tests.circuits.edits.plain_edit import EDIT, SITE, Plain, hooked_toy

TOKENS = torch.tensor([[4, 8, 15, 16, 23, 42]])


@pytest.fixture(scope="module")
def opened():
    return hooked_toy()


def test_runs_inside_are_edited_and_those_after_are_not(opened):
    model, suite = opened
    expected = Plain(suite).run(lambda m: m(TOKENS).logits)
    with torch.no_grad():
        with Edited(model=model, suite=suite, edit=EDIT).applied():
            inside = model(TOKENS)
        after = model(TOKENS)
    torch.testing.assert_close(inside, expected[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(after, expected[0], atol=1e-5, rtol=0)


def test_only_operations_to_the_patch_need_one(opened):
    model, suite = opened
    patched = Edit(operations=(Operation(node=Node(SITE, 5), do="patch"),))
    assert not Edited(model=model, suite=suite, edit=EDIT).needs_patch
    edited = Edited(model=model, suite=suite, edit=patched)
    assert edited.needs_patch
    told = "goes to the patch's value, and there is no patch here"
    with pytest.raises(ValueError, match=told), edited.applied():
        model(TOKENS)


def test_an_edit_that_fires_on_nothing_raises_unless_it_need_not(opened):
    model, suite = opened
    late = Edit(operations=(Operation(node=Node(SITE, 5, 30), do="zero"),))
    with torch.no_grad(), Edited(model=model, suite=suite, edit=late, must_fire=False).applied():
        quiet = model(TOKENS)
    with torch.no_grad():
        torch.testing.assert_close(quiet, model(TOKENS))
    edited = Edited(model=model, suite=suite, edit=late)
    with pytest.raises(RuntimeError, match="was never done"), torch.no_grad(), edited.applied():
        model(TOKENS)

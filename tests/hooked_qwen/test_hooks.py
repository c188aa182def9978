"""Hooks read and edit inside their block, and leave no trace outside it."""

import pytest
import torch

from hooked_qwen.hooks import capture, intervene
from hooked_qwen.sites import Site
from tests.toys import VOCABULARY, shared_toy

MLP = Site("mlp_out", 1)
POST = Site("resid_post", 1)
TOKENS = torch.randint(1, VOCABULARY, (2, 5), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def model():
    return shared_toy()


def hooks_in(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_capture_changes_nothing_and_is_gone_after(model):
    before, hooks = model(TOKENS), hooks_in(model)
    with capture(model, [MLP, POST]) as seen:
        assert torch.equal(model(TOKENS), before)
    assert set(seen) == {MLP, POST}
    assert hooks_in(model) == hooks


def test_an_edit_is_gone_after_the_block(model):
    before, hooks = model(TOKENS), hooks_in(model)
    with intervene(model, {MLP: torch.zeros_like, POST: lambda x: 2 * x}):
        assert not torch.equal(model(TOKENS), before)
    assert torch.equal(model(TOKENS), before)
    assert hooks_in(model) == hooks


@pytest.mark.parametrize("fails_in", ["block", "edit", "forward"])
def test_the_model_is_restored_when_something_raises(model, fails_in):
    before, hooks = model(TOKENS), hooks_in(model)

    def edit(x):
        if fails_in == "edit":
            raise KeyboardInterrupt
        return -x

    def run():
        with capture(model, [POST]), intervene(model, {MLP: edit}):
            if fails_in == "forward":
                model(torch.full((1, 3), VOCABULARY + 1))
            model(TOKENS)
            raise KeyboardInterrupt

    with pytest.raises(IndexError if fails_in == "forward" else KeyboardInterrupt):
        run()
    assert torch.equal(model(TOKENS), before)
    assert hooks_in(model) == hooks


def test_a_site_that_is_not_there_leaves_no_hook_behind(model):
    hooks = hooks_in(model)
    missing = Site("mlp_out", 9)
    with (
        pytest.raises(ValueError, match=r"there is no site mlp_out\.9"),
        capture(model, [MLP, missing]),
    ):
        pass
    with (
        pytest.raises(ValueError, match=r"there is no site mlp_out\.9"),
        intervene(model, {MLP: lambda x: x, missing: lambda x: x}),
    ):
        pass
    assert hooks_in(model) == hooks


def test_an_edit_that_never_ran_raises(model):
    with (
        pytest.raises(RuntimeError, match=r"mlp_out\.1 never edited: no forward pass inside"),
        intervene(model, {MLP: lambda x: x}),
    ):
        pass
    with (
        pytest.raises(RuntimeError, match=r"mlp_out\.1, resid_post\.1 never edited"),
        intervene(model, {Site("embed"): lambda x: x, POST: lambda x: x, MLP: lambda x: x}),
    ):
        model(TOKENS, stop_at_layer=1)


def test_a_capture_that_saw_nothing_raises(model):
    with (
        pytest.raises(RuntimeError, match=r"mlp_out\.1 never captured: no forward pass inside"),
        capture(model, [MLP]),
    ):
        pass


def test_an_error_in_the_block_is_not_hidden_by_the_edit_that_never_ran(model):
    with (
        pytest.raises(ZeroDivisionError),
        intervene(model, {MLP: lambda x: x}),
        capture(model, [POST]),
    ):
        raise ZeroDivisionError


def test_nested_edits_compose_from_the_outside_in(model):
    with capture(model, [MLP]) as clean:
        model(TOKENS)
    with (
        intervene(model, {MLP: lambda x: x + 1}),
        intervene(model, {MLP: lambda x: 3 * x}),
        capture(model, [MLP]) as seen,
    ):
        model(TOKENS)
    assert torch.equal(seen[MLP], 3 * (clean[MLP] + 1))


def test_edits_of_several_sites_run_in_one_forward(model):
    with (
        intervene(model, {MLP: torch.ones_like, POST: lambda x: x - 1}),
        capture(model, [MLP, POST, Site("resid_mid", 1)]) as seen,
    ):
        model(TOKENS)
    assert torch.equal(seen[MLP], torch.ones_like(seen[MLP]))
    expected = seen[Site("resid_mid", 1)] + 1 - 1
    torch.testing.assert_close(seen[POST], expected, atol=1e-12, rtol=0)


def test_a_capture_outside_an_edit_sees_the_tensor_before_it(model):
    with (
        capture(model, [MLP]) as outer,
        intervene(model, {MLP: torch.zeros_like}),
        capture(model, [MLP]) as inner,
    ):
        model(TOKENS)
    with capture(model, [MLP]) as clean:
        model(TOKENS)
    assert torch.equal(outer[MLP], clean[MLP])
    assert not inner[MLP].any()


def test_the_last_forward_of_the_block_is_kept(model):
    with capture(model, [POST]) as seen:
        model(TOKENS)
        first = seen[POST]
        model(TOKENS[:1, :3])
    assert first.shape[:2] == (2, 5)
    assert seen[POST].shape[:2] == (1, 3)


def test_captured_tensors_keep_their_history(model):
    shift = torch.zeros(24, dtype=torch.float64, requires_grad=True)
    with (
        intervene(model, {Site("resid_post", 0): lambda x: x + shift}),
        capture(model, [POST]) as seen,
    ):
        model(TOKENS)
    (gradient,) = torch.autograd.grad(seen[POST].sum(), shift)
    assert gradient.abs().max() > 0


@pytest.mark.parametrize("result", [None, torch.zeros(1)])
def test_an_edit_that_gives_no_tensor_of_the_same_shape_raises(model, result):
    with (
        pytest.raises((TypeError, ValueError), match="mlp_out"),
        intervene(model, {MLP: lambda x: result}),
    ):
        model(TOKENS)

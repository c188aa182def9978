"""A hooked model does no more than it is asked for, and what it gives is TransformerLens' own."""

from collections import Counter

import pytest
import torch
from accelerate import cpu_offload
from torch.utils._python_dispatch import TorchDispatchMode
from transformer_lens.model_bridge.sources import build_bridge_from_module

from hooked_qwen.load import hook
from tests.toys import FAMILIES, VOCABULARY, toy_hf


def not_lean(family="qwen3", dtype=torch.float64):
    """A bridge as TransformerLens builds it."""
    model = toy_hf(family, dtype)
    model.set_attn_implementation("eager")
    model.eval().requires_grad_(False)
    return build_bridge_from_module(
        model, type(model).__name__, hf_config=model.config, model_name="toy"
    )


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request):
    return hook(toy_hf(request.param), name="toy"), not_lean(request.param)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(1, VOCABULARY, (2, 6), generator=torch.Generator().manual_seed(3))


class Operations(TorchDispatchMode):
    """Counts what torch is asked to compute."""

    def __init__(self):
        super().__init__()
        self.counts = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[func.overloadpacket] += 1
        return func(*args, **(kwargs or {}))


def operations(model, tokens):
    with torch.no_grad(), Operations() as seen:
        model(tokens, attention_mask=torch.ones_like(tokens), use_cache=False)
    return seen.counts


@pytest.mark.parametrize("family", FAMILIES)
def test_without_hooks_a_norm_is_computed_once_as_in_hugging_face(family, tokens):
    of_norms = (torch.ops.aten.rsqrt, torch.ops.aten.pow, torch.ops.aten.mean)
    ours = operations(hook(toy_hf(family), name="toy"), tokens)
    theirs = operations(toy_hf(family).eval(), tokens)
    assert [ours[each] for each in of_norms] == [theirs[each] for each in of_norms]


@torch.no_grad()
def test_every_hook_sees_what_it_sees_in_transformer_lens(pair, tokens):
    (logits, seen), (expected, all_there) = (model.run_with_cache(tokens) for model in pair)
    assert torch.equal(logits, expected)
    assert seen.keys() == all_there.keys()
    assert all(torch.equal(seen[name], value) for name, value in all_there.items())
    assert any("hook_normalized" in name for name in seen)


@torch.no_grad()
@pytest.mark.parametrize("name", ["hook_scale", "hook_normalized"])
def test_an_edit_within_a_norm_changes_what_it_changes_in_transformer_lens(pair, tokens, name):
    edits = [(f"blocks.1.ln2.{name}", lambda value, hook: value * 1.5)]
    with pytest.warns(UserWarning, match="edited hook_scale/hook_normalized"):
        logits, expected = (model.run_with_hooks(tokens, fwd_hooks=edits) for model in pair)
    assert torch.equal(logits, expected)
    assert not torch.equal(logits, pair[0](tokens))


def gradient(model, tokens):
    found = []
    point = model.blocks[1].ln2.hook_normalized
    point.add_hook(lambda value, hook: found.append(value), dir="bwd")
    embedded = model.embed(tokens).detach().requires_grad_()
    try:
        with pytest.warns(UserWarning, match="Backward hooks"):
            model(embedded, start_at_layer=0).sum().backward()
    finally:
        model.reset_hooks()
    return [*found, embedded.grad]


def test_gradients_within_a_norm_are_those_of_transformer_lens(pair, tokens):
    ours, theirs = (gradient(model, tokens) for model in pair)
    assert len(ours) == len(theirs) == 2
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@torch.no_grad()
def test_weights_that_accelerate_keeps_elsewhere_are_there_for_an_edit(tokens):
    """An edited norm reads its weights itself, without a call of the module that has them."""
    edits = [("blocks.1.ln2.hook_normalized", lambda value, hook: value * 1.5)]
    models = [hook(toy_hf(), name="toy"), hook(cpu_offload(toy_hf(), "cpu"), name="toy")]
    with pytest.warns(UserWarning, match="edited hook_scale/hook_normalized"):
        logits, expected = (model.run_with_hooks(tokens, fwd_hooks=edits) for model in models)
    assert torch.equal(logits, expected)


@torch.no_grad()
def test_a_model_that_is_hooked_already_can_be_hooked_again(tokens):
    model = toy_hf()
    once = hook(model, name="toy")(tokens)
    assert torch.equal(hook(model, name="toy")(tokens), once)

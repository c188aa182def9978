"""Runs that do less than a whole forward give the same numbers as one."""

import warnings

import pytest
import torch

from hooked_qwen.forward import last_logits, resume, run_recording, run_through, unembed
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import hook
from hooked_qwen.notices import Notice
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch, encode, pad_left
from tests.toys import FAMILIES, SIZES, VOCABULARY, shared_toy, toy_hf, toy_tokenizer

LAYERS = SIZES["num_hidden_layers"]
LAST = Site("resid_post", LAYERS - 1)


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(family):
    return shared_toy(family, torch.float32)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def rows(*lengths):
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(1, VOCABULARY, (n,), generator=generator).tolist() for n in lengths]


def test_last_logits_are_hugging_faces_at_the_last_token(family, model):
    batch = pad_left(rows(5, 5), pad=0)
    expected = toy_hf(family, torch.float32)(batch.tokens).logits[:, -1]
    torch.testing.assert_close(last_logits(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_the_head_reads_the_last_tokens_without_gaps(model):
    """A slice with gaps is multiplied prompt by prompt, in bfloat16 with copies of the head."""
    seen = []
    head = model.unembed.original_component
    handle = head.register_forward_hook(lambda _, args, __: seen.append(args[0].is_contiguous()))
    try:
        last_logits(model, pad_left(rows(5, 3), pad=0))
    finally:
        handle.remove()
    assert seen == [True]


def test_padding_on_the_left_changes_nothing(model):
    prompts = rows(7, 3, 5)
    together = last_logits(model, pad_left(prompts, pad=0))
    for prompt, logits in zip(prompts, together, strict=True):
        alone = last_logits(model, pad_left([prompt], pad=0))[0]
        torch.testing.assert_close(logits, alone, atol=1e-4, rtol=1e-4)
    other_pad = last_logits(model, pad_left(prompts, pad=9))
    torch.testing.assert_close(other_pad, together, atol=1e-4, rtol=1e-4)


def test_padding_needs_float32(family):
    model = shared_toy(family, torch.float64)
    with pytest.raises(ValueError, match="padded prompts need a model in float32 or less"):
        last_logits(model, pad_left(rows(3, 2), pad=0))
    assert last_logits(model, pad_left(rows(3, 3), pad=0)).isfinite().all()


@pytest.mark.parametrize("layer", range(LAYERS + 1))
@pytest.mark.parametrize("lengths", [(6, 6), (6, 2, 4)])
def test_resuming_at_a_layer_equals_the_whole_run(model, layer, lengths):
    batch = pad_left(rows(*lengths), pad=0)
    start = Site("resid_post", layer - 1) if layer else Site("resid_pre", 0)
    with capture(model, [start, LAST]) as seen:
        logits, arguments = run_recording(model, batch)
    end = resume(model, seen[start], layer, arguments)
    assert torch.equal(end, seen[LAST])
    torch.testing.assert_close(unembed(model, end)[:, -1], logits, atol=1e-5, rtol=1e-5)


def test_recording_is_last_logits_and_leaves_no_hook(model):
    batch = pad_left(rows(4, 6), pad=0)
    before = [len(block._forward_pre_hooks) for block in model.blocks]
    logits, arguments = run_recording(model, batch)
    assert torch.equal(logits, last_logits(model, batch))
    assert [len(block._forward_pre_hooks) for block in model.blocks] == before
    assert len(arguments.by_layer) == LAYERS


def test_resuming_picks_the_arguments_of_each_prompt(model):
    """Rows repeated and reordered, of different padding, run as their prompts do."""
    batch = pad_left(rows(6, 2, 4), pad=0)
    start = Site("resid_pre", 1)
    with capture(model, [start, LAST]) as seen:
        _, arguments = run_recording(model, batch)
    index = torch.tensor([2, 0, 2, 1])
    end = resume(model, seen[start][index], 1, arguments.rows(index))
    expected = seen[LAST][index]
    real = batch.mask[index]
    torch.testing.assert_close(end[real], expected[real], atol=1e-5, rtol=1e-5)


def test_edits_work_while_resuming(model):
    batch = pad_left(rows(5, 5), pad=0)
    edit = {Site("mlp_out", 1): lambda x: x + 1}
    start = Site("resid_pre", 1)
    with capture(model, [start]) as seen:
        _, arguments = run_recording(model, batch)
    with intervene(model, edit), capture(model, [LAST]) as whole:
        last_logits(model, batch)
    with intervene(model, edit):
        end = resume(model, seen[start], 1, arguments)
    torch.testing.assert_close(end, whole[LAST], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("site", [Site("embed"), Site("mlp_out", 0), Site("resid_post", 1), LAST])
def test_running_through_a_layer_reaches_its_sites_and_no_later_ones(model, site):
    batch = pad_left(rows(5, 3), pad=0)
    with capture(model, [site]) as whole:
        last_logits(model, batch)
    with capture(model, [site]) as seen:
        run_through(model, batch, site.layer)
    assert torch.equal(seen[site], whole[site])
    if site.layer + 1 < LAYERS:
        with (
            pytest.raises(RuntimeError, match="never captured"),
            capture(model, [Site("attn_out", site.layer + 1)]),
        ):
            run_through(model, batch, site.layer)


def test_a_single_prompt_keeps_its_mask():
    """With one prompt every argument has a first axis of 1, which `rows` must still repeat."""
    model = shared_toy("qwen3", torch.float32)
    batch = Batch(tokens=torch.tensor([[4, 9, 2]]), mask=torch.ones(1, 3, dtype=torch.bool))
    start = Site("resid_pre", 0)
    with capture(model, [start, LAST]) as seen:
        _, arguments = run_recording(model, batch)
    index = torch.tensor([0, 0, 0])
    end = resume(model, seen[start][index], 0, arguments.rows(index))
    torch.testing.assert_close(end, seen[LAST][index], atol=1e-5, rtol=1e-5)


def test_a_token_that_the_model_does_not_embed_is_named():
    tokenizer = toy_tokenizer()
    tokenizer.add_tokens(["other"])
    model = hook(toy_hf(dtype=torch.float32), tokenizer=tokenizer, name="toy")
    batch = pad_left([encode(tokenizer, "ab other")], pad=0)
    match = r"the token 'other' has number 60, but toy embeds 60 tokens, 0 to 59"
    with pytest.raises(ValueError, match=match):
        last_logits(model, batch)
    assert last_logits(model, pad_left([encode(tokenizer, "ab ot")], pad=0)).isfinite().all()


def test_a_text_beyond_the_models_positions_is_said():
    model, known = shared_toy(dtype=torch.float32), SIZES["max_position_embeddings"]
    with pytest.warns(Notice, match=f"a text of {known + 1} tokens goes beyond the {known} posit"):
        last_logits(model, pad_left(rows(known + 1, 2), pad=0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        last_logits(model, pad_left(rows(known, 2), pad=0))

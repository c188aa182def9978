"""Where in its text each token of a pass stands: with and without a cache, padded or not."""

import pytest
import torch

from hooked_qwen.forward import resume, run_recording
from hooked_qwen.hooks import capture
from hooked_qwen.positions import follow_positions
from hooked_qwen.sites import Site
from hooked_qwen.tokens import pad_left
from tests.toys import speaking_toy

ROWS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
NEW = 3


@pytest.fixture(params=["qwen2", "qwen3"])
def model(request):
    return speaking_toy(request.param, torch.float32)


def passes_of(model, run):
    """The positions, and the lengths of prompts, of each pass, as its second block sees them."""
    found = []
    with follow_positions(model) as at:
        handle = model.blocks[1].register_forward_pre_hook(
            lambda *_: found.append((at.tokens.tolist(), at.prompt_lengths.tolist()))
        )
        try:
            run()
        finally:
            handle.remove()
    return found


@pytest.mark.parametrize("cache", [True, False])
def test_tokens_are_counted_on_from_their_prompt_whatever_a_step_sees(model, cache):
    batch = pad_left(ROWS, 0)

    def write():
        model.original_model.generate(
            batch.tokens,
            attention_mask=batch.mask.long(),
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            do_sample=False,
            use_cache=cache,
            pad_token_id=0,
        )

    found = passes_of(model, write)
    assert len(found) == NEW
    for step, (tokens, lengths) in enumerate(found):
        assert lengths == [len(row) for row in ROWS], "the prompts stay the same"
        for own, row in zip(tokens, ROWS, strict=True):
            whole = [-1] * (4 - len(row)) + list(range(len(row) + step))
            assert own == (whole[-1:] if cache and step else whole)


def test_another_text_of_the_same_length_is_another_prompt(model):
    first, other = torch.tensor([[5, 6, 7]]), torch.tensor([[8, 6, 7, 9]])
    going_on = torch.tensor([[5, 6, 7, 9]])
    found = passes_of(model, lambda: [model(x) for x in (first, going_on, first, other)])
    assert [lengths for _, lengths in found] == [[3], [3], [3], [4]]


def test_blocks_that_run_alone_know_where_tokens_stand_by_their_mask(model):
    batch, site = pad_left(ROWS, 0), Site("resid_pre", 1)
    with torch.no_grad(), capture(model, [site]) as seen:
        _, arguments = run_recording(model, batch)
    expected = [[-1] * (4 - len(row)) + list(range(len(row))) for row in ROWS]
    found = passes_of(model, lambda: resume(model, seen[site], 1, arguments))
    assert [tokens for tokens, _ in found] == [expected]
    assert found[0][1] == [4, 2, 3]

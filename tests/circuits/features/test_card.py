"""Cards of features: the tokens that a decoder row promotes, and the text looked at."""

import torch

from circuits.features.card import block_texts, logit_tokens, prompt_texts
from tests.toys import full_suite, shared_toy, toy_prompts


def test_promoted_and_suppressed_tokens_change_places_with_the_sign_of_the_row():
    model, suite = shared_toy(), full_suite()
    dictionary = suite["mlp_out.1"]
    one = logit_tokens(model, dictionary, [3, 5])
    with torch.no_grad():
        dictionary.W_dec.neg_()
    other = logit_tokens(model, dictionary, [3, 5])
    assert torch.equal(one.promoted, other.suppressed)
    torch.testing.assert_close(one.promoted_scores, -other.suppressed_scores)
    assert (one.promoted_scores.diff(dim=-1) <= 0).all()


def test_prompts_are_looked_at_whole_clean_then_patch():
    prompts = toy_prompts(n=5)
    batches = prompt_texts(prompts, batch_size=2)
    assert [len(b) for b in batches] == [2, 2, 1, 2, 2, 1]
    found = torch.cat([b.tokens for b in batches])
    assert torch.equal(found, torch.cat([prompts.clean.tokens, prompts.patch.tokens]))


def test_blocks_of_text_come_in_batches_without_padding():
    blocks = list(torch.arange(35).view(5, 7))
    batches = block_texts(iter(blocks), batch_size=2)
    assert [len(b) for b in batches] == [2, 2, 1]
    assert torch.equal(torch.cat([b.tokens for b in batches]), torch.stack(blocks))
    assert all(b.mask.all() for b in batches)

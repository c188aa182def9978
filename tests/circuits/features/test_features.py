"""Feature cards against plain recomputation from the weights, and their view on the terminal."""

import json

import pytest
import torch
from transformers import Qwen2Tokenizer

from circuits.features.card import logit_tokens, make_cards, prompt_texts
from circuits.features.names import name_of_card
from circuits.features.neighbours import feature_card
from circuits.graph import Node
from hooked_qwen.load import hook
from hooked_qwen.tokens import token_strings
from tests.toys import (
    speaking_toy,
    toy_hf,
    toy_prompts,
    toy_suite,
    toy_tokenizer,
)


def test_promoted_tokens_are_the_direct_path_to_the_logits(model, hf, suite, store):
    gain, unembedding = hf.model.norm.weight, hf.lm_head.weight
    for index in (0, 7):
        card = feature_card(model, suite, store, f"mlp_out.1/{index}")
        scores = unembedding @ (gain * suite[2].W_dec[index])
        scores = (scores - scores.mean()).detach()
        order = scores.argsort(descending=True).tolist()
        for key, ids in (("promoted", order[:8]), ("suppressed", order[::-1][:8])):
            assert [t for t, _ in card[key]] == token_strings(model.tokenizer, ids)
            expected = [float(scores[i]) for i in ids]
            assert [s for _, s in card[key]] == pytest.approx(expected, rel=1e-4)


def test_rows_of_the_vocabulary_that_are_no_token_are_not_promoted(suite):
    hf = toy_hf("qwen3", torch.float32)
    vocabulary = [p for p in toy_tokenizer().get_vocab() if p not in ("!", "?", ".")]
    shorter = Qwen2Tokenizer(vocab={p: i for i, p in enumerate(vocabulary)}, merges=[("a", "b")])
    with torch.no_grad():
        hf.lm_head.weight[len(shorter) :] *= 100
    found = logit_tokens(hook(hf, tokenizer=shorter, name="toy"), suite[2], range(12))
    assert int(torch.cat([found.promoted, found.suppressed]).max()) < len(shorter)


def test_a_card_tells_what_the_store_holds(model, suite, store):
    card = feature_card(model, suite, store, "mlp_in.1-mlp_out.1/2")
    found = store.examples(suite[1])
    assert card["source"], card["target"] == ("mlp_in.1", "mlp_out.1")
    assert card["density"] == pytest.approx(found.density(2))
    assert card["max_activation"] == pytest.approx(found.largest(2))
    for key, passages in (("examples", found.top), ("sampled", found.sampled)):
        for shown, example in zip(card[key], found.of(2, passages), strict=True):
            assert shown["tokens"] == token_strings(model.tokenizer, example.tokens)
            assert shown["values"] == pytest.approx(example.values, rel=5e-3)
            assert shown["peak"] == example.peak
    assert card["label"] == name_of_card(card)
    assert json.loads(json.dumps(card, allow_nan=False)) == card


def test_cards_of_a_run_come_from_its_prompts():
    model = speaking_toy()
    suite, prompts = toy_suite("mlp_out.1", "attn_out.0"), toy_prompts(6)
    nodes = [Node("mlp_out.1", 4, 2), Node("mlp_out.1", 1), Node("mlp_out.1", 4, 3)]
    nodes += [Node("attn_out.0", 2), Node("attn_out.0", "error"), Node("logit", " a")]
    cards = make_cards(model, suite, nodes, prompt_texts(prompts))
    assert set(cards) == {"mlp_out.1/4", "mlp_out.1/1", "attn_out.0/2"}
    for card in cards.values():
        assert card["tokens_seen"] == 2 * 6 * 6
        assert len(card["promoted"]) == len(card["suppressed"]) == 8
        for example in card["examples"]:
            assert example["values"][example["peak"]] == max(example["values"]) > 0
            assert len(example["tokens"]) == len(example["values"])
    assert make_cards(model, suite, [], prompt_texts(prompts)) == {}

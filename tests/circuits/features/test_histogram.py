"""How often each activation of a feature comes."""

import torch

from circuits.features.card import make_cards, prompt_texts
from circuits.features.histogram import examples_and_histograms
from circuits.graph import Node
from saes.examples.collect import find_examples
from saes.suite import OnDemand
from tests.conftest import full_suite, toy, toy_prompts, toy_tokenizer


def test_every_active_token_counts_once_at_its_activation():
    model, suite = toy(), full_suite()
    texts = prompt_texts(toy_prompts(n=6))
    dictionary = suite["mlp_out.1"]
    features = list(range(dictionary.n_features))
    ((examples, found),) = examples_and_histograms(
        model, OnDemand(suite, ["mlp_out.1"]), [features], texts, top=99
    )
    (plain,) = find_examples(model, OnDemand(suite, ["mlp_out.1"]), [features], texts, top=99)
    assert torch.equal(examples.top.activation, plain.top.activation)
    for feature, histogram in zip(features, found, strict=True):
        fired = int(examples.fired[feature])
        assert (histogram is None) == (fired == 0)
        if histogram is None:
            continue
        counts, first, steps = (histogram[k] for k in ("counts", "first", "per_doubling"))
        assert sum(counts) == fired
        assert counts[0] > 0 < counts[-1]
        largest = examples.largest(feature)
        assert 2 ** ((first + len(counts) - 1) / steps) <= largest * (1 + 1e-6)
        assert largest < 2 ** ((first + len(counts)) / steps) * (1 + 1e-6)


def test_a_card_has_the_histogram_of_its_feature():
    model, suite = toy(), full_suite()
    model.tokenizer = toy_tokenizer()
    cards = make_cards(model, suite, [Node("mlp_out.1", 3)], prompt_texts(toy_prompts(n=4)))
    card = cards["mlp_out.1/3"]
    histogram = card["histogram"]
    active = sum(histogram["counts"]) if histogram else 0
    assert active == round(card["density"] * card["tokens_seen"])

"""How often each activation of a feature comes."""

import torch

from circuits.features.card import make_cards, prompt_texts
from circuits.graph import Node
from saes.examples.collect import find_examples
from saes.examples.histogram import HIGHEST, LOWEST, N_STEPS, PER_DOUBLING, count, no_counts
from saes.features import Features
from saes.on_demand import OnDemand
from tests.toys import full_suite, shared_toy, speaking_toy, toy_prompts


def test_every_active_token_counts_once_at_its_activation():
    model, suite = shared_toy(), full_suite()
    texts = prompt_texts(toy_prompts(n=6))
    features = list(range(suite["mlp_out.1"].n_features))
    opened = OnDemand(suite, ["mlp_out.1"])
    (examples,) = find_examples(model, opened, [features], texts, top=99)
    for feature in features:
        fired, histogram = int(examples.fired[feature]), examples.histogram(feature)
        assert (histogram is None) == (fired == 0)
        if histogram is None:
            continue
        counts, first, steps = (histogram[k] for k in ("counts", "first", "per_doubling"))
        assert sum(counts) == fired
        assert counts[0] > 0 < counts[-1]
        largest = examples.largest(feature)
        assert 2 ** ((first + len(counts) - 1) / steps) <= largest * (1 + 1e-6)
        assert largest < 2 ** ((first + len(counts)) / steps) * (1 + 1e-6)


def test_counts_add_up_over_passes_and_what_lies_beyond_the_scale_is_at_its_ends():
    f = torch.tensor([[[1.0, 0.0, 2.0**LOWEST / 8], [1.0, -3.0, 2.0**HIGHEST * 8]]])
    counts = no_counts(3, f.device)
    for _ in range(2):
        count(counts, Features.of_coordinates(f), torch.ones(1, 2, dtype=torch.bool))
    few = Features(torch.tensor([[[1], [2]]]), torch.tensor([[[5.0], [0.0]]]), 3)
    count(counts, few, torch.tensor([[False, True]]))
    expected = torch.zeros(3, N_STEPS, dtype=torch.int32)
    expected[0, -LOWEST * PER_DOUBLING] = 4
    expected[2, [0, -1]] = 2
    assert torch.equal(counts, expected)


def test_a_card_has_the_histogram_of_its_feature():
    model, suite = speaking_toy(), full_suite()
    cards = make_cards(model, suite, [Node("mlp_out.1", 3)], prompt_texts(toy_prompts(n=4)))
    card = cards["mlp_out.1/3"]
    histogram = card["histogram"]
    active = sum(histogram["counts"]) if histogram else 0
    assert active == round(card["density"] * card["tokens_seen"])

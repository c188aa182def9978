"""Cards of a detector's features: where in its own texts each fires."""

import pytest
import torch

from circuits.features.detector_cards import AROUND, EXAMPLES, ChosenOn, detector_cards
from hooked_qwen.nodes import Node
from saes.scope.activity import Activity, activity_of
from tests.toys import speaking_toy, toy_suite

TEXTS = ["abcd e", "Hello abc", "aaab bbb", "xyz zyx", "what no", "zzz yx", "abcd e"]
POSITIVE = torch.arange(7) < 3


@pytest.fixture(scope="module")
def opened():
    return speaking_toy(dtype=torch.float32), toy_suite("resid_post.0", dtype=torch.float32)


@pytest.fixture(scope="module")
def cards(opened):
    model, suite = opened
    activity = activity_of(model, suite, TEXTS)
    nodes = [activity.node(int(i)) for i in activity.feature.unique()]
    chosen_on = ChosenOn(texts=TEXTS, positive=POSITIVE, activity=activity)
    return chosen_on, detector_cards(model, suite, nodes, chosen_on)


def test_examples_are_the_texts_in_which_a_feature_is_strongest_each_wording_once(cards):
    chosen_on, found = cards
    for node, card in found.items():
        shown = chosen_on.strongest(node)
        assert len({TEXTS[i] for i in shown}) == len(shown) <= EXAMPLES
        strengths = [example["activation"] for example in card["examples"]]
        assert strengths == sorted(strengths, reverse=True)
        assert [e["positive"] for e in card["examples"]] == [bool(POSITIVE[i]) for i in shown]
        for i, example in zip(shown, card["examples"], strict=True):
            assert "<<" in example["text"]
            assert example["text"].replace("<<", "").replace(">>", "") in TEXTS[i]


def test_shares_are_of_the_texts_of_each_kind(cards):
    chosen_on, found = cards
    activity = chosen_on.activity
    for node, card in found.items():
        on = set(activity.text[activity.feature == activity.number(node)].tolist())
        assert card["on"]["positive"] == pytest.approx(len(on & {0, 1, 2}) / 3, abs=1e-6)
        assert card["on"]["negative"] == pytest.approx(len(on & {3, 4, 5, 6}) / 4, abs=1e-6)


def test_of_a_long_text_what_stands_about_the_strongest_token_is_shown(opened):
    model, suite = opened
    text = "xyz " * 40
    activity = activity_of(model, suite, [text, "a"])
    node = activity.node(int(activity.feature[0]))
    positive = torch.tensor([True, False])
    chosen_on = ChosenOn(texts=[text, "a"], positive=positive, activity=activity)
    cards = detector_cards(model, suite, [node], chosen_on)
    example = max(cards[node]["examples"], key=lambda one: one["positive"])
    plain = example["text"].replace("<<", "").replace(">>", "")
    assert len(model.tokenizer(plain)["input_ids"]) <= 2 * AROUND + 1


def test_a_feature_that_is_on_in_no_text_has_no_example():
    nothing = torch.zeros(0)
    activity = Activity(
        names=("a",), widths=(4,), was_cut=torch.tensor([False, False]), text=nothing.long(),
        feature=nothing.long(), mean=nothing, largest=nothing,
    )  # fmt: skip
    positive = torch.tensor([True, False])
    chosen_on = ChosenOn(texts=["x", "y"], positive=positive, activity=activity)
    assert chosen_on.strongest(Node("a", 2)) == []
    assert chosen_on.shares(Node("a", 2)) == {"positive": 0.0, "negative": 0.0}

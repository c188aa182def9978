"""Which features are on in texts: of some of them, of none, on another device, of suites beside."""

import pytest
import torch

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from hooked_qwen.stream import is_outlier_in_prompt
from hooked_qwen.tokens import encode_prompt
from saes.evaluation.baselines import untrained
from saes.evaluation.splice import unpadded
from saes.scope.activity import activity_of, read_through
from tests.toys import speaking_toy, toy, toy_suite, toy_tokenizer

TEXTS = ["abc de", "Hello", "aaaa bbb ccc", "x", "what? no!", "ab"]


@pytest.fixture(scope="module")
def model():
    return speaking_toy(dtype=torch.float32)


@pytest.fixture(scope="module")
def suite():
    return toy_suite("resid_post.0", "mlp_in.1-mlp_out.1", dtype=torch.float32)


@pytest.fixture(scope="module")
def activity(model, suite):
    return activity_of(model, suite, TEXTS, longest=8)


def test_what_is_on_in_a_text_is_what_its_tokens_have(model, suite, activity):
    for number, text in enumerate(TEXTS):
        tokens = torch.tensor([encode_prompt(model.tokenizer, text)[:8]])
        with capture(model, suite.reads) as seen:
            run_through(model, unpadded(tokens), 1)
        expected, start = {}, 0
        for name in suite:
            x = suite.read(name, seen)
            counted = ~is_outlier_in_prompt(x, torch.ones_like(tokens, dtype=torch.bool))[0]
            f = suite[name].encode(x).dense()[0][counted]
            for feature in f.any(0).nonzero().flatten().tolist():
                of = f[:, feature]
                expected[start + feature] = (float(of.mean()), float(of.max()))
            start += f.shape[1]
        of = activity.text == number
        assert activity.feature[of].tolist() == sorted(expected)
        means, largest = zip(*(expected[i] for i in sorted(expected)), strict=True)
        torch.testing.assert_close(activity.mean[of], torch.tensor(means))
        torch.testing.assert_close(activity.largest[of], torch.tensor(largest))
    assert activity.was_cut.tolist() == [False, False, True, False, True, False]


def test_features_count_through_all_dictionaries(activity, suite):
    assert activity.n_features == 40
    assert (activity.node(3), activity.node(23)) == (Node("resid_post.0", 3), Node("mlp_out.1", 3))
    with pytest.raises(IndexError, match="40 features, not 41"):
        activity.node(40)


def test_some_of_the_texts(model, suite, activity):
    chosen = torch.tensor([4, 1])
    found = activity.of_texts(chosen)
    alone = activity_of(model, suite, [TEXTS[4], TEXTS[1]], longest=8)
    assert torch.equal(found.text, alone.text)
    assert torch.equal(found.feature, alone.feature)
    torch.testing.assert_close(found.mean, alone.mean)
    assert found.was_cut.tolist() == [True, False]


def test_texts_without_tokens_are_named(model, suite):
    with pytest.raises(ValueError, match="there is no text"):
        activity_of(model, suite, [])
    with pytest.raises(ValueError, match="text 2 has no tokens"):
        activity_of(model, suite, ["a", ""])


def test_what_is_on_is_the_same_on_another_device(other, suite):
    def found(device):
        model = toy(dtype=torch.float32).to(device)
        model.tokenizer = toy_tokenizer()
        reading = read_through(model, suite, TEXTS, sites=[Site("resid_post", 1)], longest=8)
        activity = reading.activity
        means = list(reading.means.values())
        return [activity.text, activity.feature, activity.mean, activity.largest, *means]

    with other.complaining():
        there = found(other.name)
    for one, here in zip(there, found("cpu"), strict=True):
        assert one.is_cpu
        torch.testing.assert_close(one, here, atol=1e-5, rtol=1e-4)


def test_suites_beside_are_read_in_the_same_pass(model, suite):
    control = untrained(suite, seed=3)
    both = read_through(model, suite, TEXTS, beside=[control], longest=8)
    for found, one in ((both.activity, suite), (both.beside[0], control)):
        alone = activity_of(model, one, TEXTS, longest=8)
        assert torch.equal(found.feature, alone.feature)
        torch.testing.assert_close(found.largest, alone.largest)

"""What is on in texts, and which features tell two sets of them apart."""

import math

import pytest
import torch

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from hooked_qwen.stream import is_outlier_in_prompt
from hooked_qwen.tokens import encode_prompt
from saes.evaluation.baselines import untrained
from saes.evaluation.bootstrap import RESAMPLES
from saes.evaluation.splice import unpadded
from saes.scope.activity import Activity, activity_of, read_through
from saes.scope.contrast import contrast, difference_interval, standardised_differences
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


def planted(dense):
    """An activity of these activations, texts by features."""
    text, feature = dense.nonzero(as_tuple=True)
    value = dense[text, feature].float()
    return Activity(
        names=("resid_post.0",),
        widths=(dense.shape[1],),
        was_cut=torch.zeros(len(dense), dtype=torch.bool),
        text=text,
        feature=feature,
        mean=value,
        largest=value,
    )


@pytest.fixture
def data():
    """Feature 0 is on in every positive text, 1 in every text, stronger in the positive ones."""
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(20, 60, generator=generator)
    dense[dense < 0.7] = 0
    positive = torch.arange(20) < 8
    dense[:, 0] = positive.float()
    dense[:, 1] = 1 + 5 * positive.float() + 0.1 * torch.rand(20, generator=generator)
    dense[:, 2] = 0
    return dense, positive


def test_the_planted_features_lead(data):
    dense, positive = data
    by_share = contrast(planted(dense), positive)
    first = by_share.found[0]
    assert (first.node.feature, first.difference) == (0, 1.0)
    assert first.by_chance < 1 / 200
    by_mean = contrast(planted(dense), positive, by="mean", top=2)
    assert {one.node.feature for one in by_mean.found} == {0, 1}
    assert by_mean.features_on == 59
    every = contrast(planted(dense), positive, top=100).found
    (constant,) = (one for one in every if one.node.feature == 1)
    assert (constant.difference, constant.on_negative) == (0.0, 1.0)


@pytest.mark.parametrize("by", ["share", "mean"])
def test_numbers_are_those_of_the_dense_matrix(data, by):
    dense, positive = data
    found = contrast(planted(dense), positive, by=by, top=100, shuffles=50, seed=3)
    x = (dense > 0 if by == "share" else dense).double()
    scale = torch.ones(60) if by == "share" else x.std(0, correction=0)

    def differences(labels):
        return torch.nan_to_num((x[labels].mean(0) - x[~labels].mean(0)) / scale)

    generator = torch.Generator().manual_seed(3)
    shuffled = torch.stack(
        [differences(positive[torch.randperm(20, generator=generator)]) for _ in range(50)]
    ).abs()
    real = differences(positive)
    for one in found.found:
        value = one.difference if by == "share" else one.effect
        assert value == pytest.approx(float(real[one.node.feature]), abs=1e-6)
        # Feature 2 is on nowhere: it is not compared.
        as_large = ((shuffled >= abs(value) - 1e-7).sum() - 50 * (abs(value) < 1e-7)) / 50
        assert one.by_chance == pytest.approx(float(as_large), abs=0.021)
    sizes = [round(abs(o.difference if by == "share" else o.effect), 9) for o in found.found]
    assert sizes == sorted(sizes, reverse=True)
    assert found.chance == pytest.approx(float(shuffled.amax(1).sort().values[47]), abs=1e-6)


def test_labels_that_say_nothing_are_matched_by_chance():
    generator = torch.Generator().manual_seed(1)
    dense = (torch.rand(30, 200, generator=generator) < 0.3).float()
    found = contrast(planted(dense), torch.arange(30) % 2 == 0)
    assert found.found[0].by_chance > 0.05


def test_the_interval_is_newcombes():
    # The example of his paper, method 10.
    low, high = difference_interval((56, 48), (70, 80))
    assert (low, high) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    low, high = difference_interval((0, 0), (10, 10))
    assert low == pytest.approx(-high)
    assert math.isclose(difference_interval((5, 0), (5, 5))[1], 1.0)


def test_the_interval_of_a_difference_of_means_draws_the_texts_of_each_set_again(data):
    dense, positive = data
    found = contrast(planted(dense), positive, by="mean", top=100).found
    x = dense.double()
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    sets = [kind.nonzero().flatten() for kind in (positive, ~positive)]
    drawn = [
        some[torch.randint(len(some), (RESAMPLES, len(some)), generator=generator)]
        for some, generator in zip(sets, generators, strict=True)
    ]
    first, second = (x[rows] for rows in drawn)
    spread = torch.cat([first, second], 1).std(1, correction=0)
    draws = torch.nan_to_num((first.mean(1) - second.mean(1)) / spread)
    for one in found:
        expected = draws[:, one.node.feature].quantile(
            torch.tensor([0.025, 0.975], dtype=torch.float64)
        )
        assert one.effect_interval == pytest.approx(expected.tolist(), abs=1e-6)
        assert one.effect_interval[0] - 1e-6 <= one.effect <= one.effect_interval[1] + 1e-6


def test_the_interval_of_a_difference_of_means_covers_it():
    generator = torch.Generator().manual_seed(0)
    positive = torch.arange(60) < 24
    x = torch.randn(400, 60, generator=generator).double() + positive
    # Over all texts the variance is 1 + share (1 - share) of the distance between the means.
    true = 1 / (1 + 0.4 * 0.6) ** 0.5
    draws = standardised_differences(x, positive)[:, 1:]
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=1)
    assert 0.90 <= float(((low <= true) & (true <= high)).double().mean()) <= 0.98


def test_a_set_of_one_text_is_no_set(data):
    dense, _ = data
    with pytest.raises(ValueError, match="1 positive and 19 negative texts"):
        contrast(planted(dense), torch.arange(20) < 1)


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

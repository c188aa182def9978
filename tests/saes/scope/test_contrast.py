"""Which features tell two sets of texts apart."""

import math

import pytest
import torch

from saes.evaluation.bootstrap import RESAMPLES
from saes.scope.activity import Activity
from saes.scope.contrast import contrast, difference_interval, standardised_differences


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

"""The linear control: the best map of as low a rank as a dictionary has features on."""

import numpy as np
import pytest
import torch

from saes.evaluation import baselines as controls
from saes.evaluation.low_rank import low_rank
from saes.evaluation.metrics import evaluate
from tests.saes.evaluation.test_baselines import FITTED, JUDGED, MLP, NAMES, D, one, plain_values
from tests.toys import shared_toy, toy_suite


@pytest.fixture(scope="module")
def model():
    return shared_toy("qwen3")


def plain_rank(x, y, r):
    """Rank-r regression the long way: least squares, then SVD of the fitted values."""
    x, y = x.numpy(), y.numpy()
    centred = x - x.mean(0)
    coefficients, *_ = np.linalg.lstsq(centred, y - y.mean(0), rcond=None)
    _, _, Vt = np.linalg.svd(centred @ coefficients, full_matrices=False)
    project = coefficients @ Vt[:r].T @ Vt[:r]
    return lambda new: torch.from_numpy((new.numpy() - x.mean(0)) @ project + y.mean(0))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("k", [1, 4])
def test_the_linear_control_is_the_best_map_of_its_rank(model, name, k):
    dictionary = one(name, k)
    (linear,) = low_rank(model, [dictionary], FITTED)
    x, y = plain_values(model, FITTED, dictionary)
    new, _ = plain_values(model, JUDGED, dictionary)
    expected = plain_rank(x, y, k)
    torch.testing.assert_close(linear(x), expected(x), atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(linear(new), expected(new), atol=1e-8, rtol=1e-8)
    assert (linear.source, linear.target) == (dictionary.source, dictionary.target)
    active = (linear.encode(new).dense() != 0).sum(-1)
    assert (active == k).all()


@pytest.mark.parametrize("name", NAMES[:2])
def test_for_an_sae_the_linear_control_is_pca(model, name):
    dictionary = one(name, 3)
    (linear,) = low_rank(model, [dictionary], FITTED)
    _, y = plain_values(model, FITTED, dictionary)
    y = y.numpy()
    _, _, Vt = np.linalg.svd(y - y.mean(0), full_matrices=False)
    pca = (y - y.mean(0)) @ Vt[:3].T @ Vt[:3] + y.mean(0)
    np.testing.assert_allclose(linear(torch.from_numpy(y)).numpy(), pca, atol=1e-8)


def test_no_map_of_the_same_rank_errs_less_on_the_text_it_is_fitted_on(model):
    dictionary = one("mlp_in.1-mlp_out.1", 2)
    (linear,) = low_rank(model, [dictionary], FITTED)
    x, y = plain_values(model, FITTED, dictionary)

    def error(factor):
        W_enc = linear.W_enc[:2] * factor[0]
        f = (x - x.mean(0)) @ W_enc.T
        return float((y - y.mean(0) - f @ (linear.W_dec[:2] * factor[1])).square().sum())

    best = error((torch.ones(2, D), torch.ones(2, D)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        nudged = [1 + 0.05 * torch.randn(2, D, generator=generator) for _ in range(2)]
        assert error(nudged) > best


def test_the_rank_is_the_l0_rounded_and_no_more_than_the_width(model):
    exact = controls.neurons(toy_suite("mlp_out.1"))[MLP]
    silent = one("mlp_out.1")
    silent.b_enc.fill_(-1e6)
    full, least = low_rank(model, [exact, silent], FITTED)
    assert full.n_features == 2 * D
    assert least.n_features == 2
    (quality,) = evaluate(model, [full], JUDGED)
    assert quality.fvu == pytest.approx(0, abs=1e-12)


def test_a_linear_control_needs_more_tokens_than_the_source_is_wide(model):
    with pytest.raises(ValueError, match="mlp_out.1 needs over 24 tokens beyond .*; 18 are left"):
        low_rank(model, [one("mlp_out.1")], FITTED[:2])
    with pytest.raises(ValueError, match="0 are left: give more text"):
        low_rank(model, [one("mlp_out.1")], FITTED[:0])

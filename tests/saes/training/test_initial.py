"""What a dictionary starts from, as formulas."""

import pytest
import torch

from hooked_qwen.sites import Site
from saes.sae import sae
from saes.training.config import TrainConfig
from saes.training.initial import Normalisation, initial_weights, nested_widths
from transcoders.transcoder import transcoder

D, WIDTH = 6, 20


@pytest.fixture
def x():
    return 3 * torch.randn(500, D, generator=torch.Generator().manual_seed(0)).double() + 7


def test_activations_are_centred_with_a_mean_squared_norm_of_d(x):
    found = Normalisation.of(x)
    there = found.apply(x)
    torch.testing.assert_close(there, (x - x.mean(0)) * found.scale)
    assert there.mean(0).abs().max() < 1e-12
    assert float(there.square().sum(-1).mean()) == pytest.approx(D, rel=1e-12)


@pytest.mark.parametrize("spec", [sae(Site("mlp_out", 1), k=3), transcoder(1, k=3, skip=True)])
def test_rows_have_norm_one_and_an_sae_begins_by_reading_what_it_writes(x, spec):
    found = initial_weights(spec, WIDTH, x, D + 2 if spec.skip else D, seed=1)
    ones = torch.ones(WIDTH, dtype=torch.float64)
    for rows in (found.W_enc, found.W_dec):
        torch.testing.assert_close(rows.norm(dim=-1), ones, rtol=1e-6, atol=0)
    assert not found.b_enc.any()
    assert not found.b_dec.any()
    if spec.source == spec.target:
        assert torch.equal(found.W_enc, found.W_dec)
        assert found.W_enc.data_ptr() != found.W_dec.data_ptr(), "each is trained on its own"
        assert found.W_skip is None
    else:
        assert found.W_enc.shape == (WIDTH, D) != found.W_dec.shape == (WIDTH, D + 2)
        assert found.W_skip.shape == (D + 2, D)
        assert not found.W_skip.any()
    again, other = (initial_weights(spec, WIDTH, x, found.W_dec.shape[1], seed=s) for s in (1, 2))
    assert torch.equal(again.W_dec, found.W_dec)
    assert not torch.equal(other.W_dec, found.W_dec)


def test_nested_widths_grow_to_the_whole():
    site = Site("mlp_out", 1)
    assert nested_widths(sae(site, k=3), TrainConfig(width=64, tokens=100)) == (64,)
    of_matryoshka = nested_widths(
        sae(site, k=3, architecture="matryoshka"), TrainConfig(width=64, tokens=100)
    )
    assert len(of_matryoshka) > 1
    assert list(of_matryoshka) == sorted(set(of_matryoshka))
    assert of_matryoshka[-1] == 64
    chosen = TrainConfig(width=64, tokens=100, prefixes=(8, 32))
    assert nested_widths(sae(site, k=3, architecture="matryoshka"), chosen) == (8, 32, 64)

"""Thresholds let k features of an average token through, however short the training was."""

from itertools import islice

import pytest
import torch

from hooked_qwen.load import BUNDLED, load
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig, activation_batches
from hooked_qwen.texts import texts_of
from saes.sae import sae
from saes.training.calibration import LargestPerToken
from saes.training.loop import TrainConfig, fit
from tests.saes.training.test_loop import OUT, planted
from transcoders.transcoder import transcoder

ARCHITECTURES = ("batch-topk", "matryoshka")


def mean_l0(dictionary, batches):
    x = torch.cat([batch.pair(dictionary.source, dictionary.target)[0] for batch in batches])
    return float((dictionary.encode(x).dense() != 0).sum(-1).float().mean())


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_average_is_k_on_activations_that_were_not_trained_on(average):
    specs = [sae(OUT, k=3, architecture=a) for a in ARCHITECTURES]
    specs += [transcoder(0, k=2, architecture=a) for a in ARCHITECTURES]
    config = TrainConfig(width=48, tokens=64 * 40, average=average, learning_rate=5e-3)
    for found in fit(planted(200, 64), specs, config=config):
        l0 = mean_l0(found.dictionary, planted(100, 64, seed=9))
        assert l0 == pytest.approx(found.dictionary.spec.k, rel=0.03), found.dictionary.spec


def test_20_000_tokens_of_the_bundled_model():
    model = load(BUNDLED)
    site = Site("mlp_out", 0)
    specs = [sae(site, k=16, architecture=a) for a in ARCHITECTURES]

    def stream(start=0):
        texts = texts_of([BUNDLED])()
        return activation_batches(model, [site], texts, config=StreamConfig(), start=start)

    held_out = list(islice(stream(100), 16))
    for found in fit(stream(), specs, config=TrainConfig(width=128, tokens=20_000)):
        assert mean_l0(found.dictionary, held_out) == pytest.approx(16, rel=0.03)


def test_without_activations_to_follow_the_last_batch_sets_the_threshold():
    batches = list(planted(20, 64))
    (found,) = fit(batches, [sae(OUT, k=3, architecture="batch-topk")], config=CONFIG)
    assert mean_l0(found.dictionary, batches[-1:]) == pytest.approx(3, abs=0.02)


CONFIG = TrainConfig(width=48, tokens=64 * 20, learning_rate=5e-3)


def test_outliers_set_no_threshold():
    specs = [sae(OUT, k=3, architecture="batch-topk")]
    plain = list(planted(100, 64))
    (expected,) = fit(plain, specs, config=CONFIG)
    for batch in plain[20:]:
        batch.values[OUT][:8] *= 1000
        batch.outlier[OUT][:8] = True
    (found,) = fit(plain, specs, config=CONFIG)
    assert found.dictionary.threshold is not None
    torch.testing.assert_close(
        found.dictionary.threshold, expected.dictionary.threshold, rtol=0.03, atol=0
    )


@pytest.mark.parametrize("k", [1, 3, 11])
def test_the_search_is_exact(k):
    generator = torch.Generator().manual_seed(k)
    parts = [torch.randn(n, 20, generator=generator) for n in (5, 17, 1, 40, 30)]
    search = LargestPerToken(k, 100)
    for part in parts:
        search.add(part)
    pre = torch.cat(parts)
    kept = int((pre > search.threshold()).sum())
    assert kept == min(k * len(pre), int((pre > 0).sum()))

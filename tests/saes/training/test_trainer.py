"""A dictionary's training step: what it folds, averages, and refuses."""

from dataclasses import replace

import pytest
import torch

from hooked_qwen.sites import Site
from hooked_qwen.stream import ActivationBatch
from saes.sae import sae
from saes.training.loop import TrainConfig, fit
from saes.training.trainer import share_of_last
from tests.saes.training.test_loop import planted, tensors, unit_rows
from transcoders.transcoder import transcoder

OUT, IN = Site("mlp_out", 0), Site("mlp_in", 0)
SAE, TRANSCODER = sae(OUT, k=4), transcoder(0, k=4)
PLANTED, D = 24, 16
CONFIG = TrainConfig(width=20, tokens=32 * 100, dead_after=40, learning_rate=3e-3)


@pytest.fixture
def _float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_float64")
@pytest.mark.parametrize("spec", [SAE, TRANSCODER], ids=["sae", "transcoder"])
def test_the_folded_dictionary_is_the_normalised_one(spec):
    """Activations moved and stretched train the same dictionary, moved and stretched back."""

    def moved(batches):
        for batch in batches:
            values = {site: 7 * value + 11 for site, value in batch.values.items()}
            yield ActivationBatch(values, batch.outlier)

    (plain,) = fit(planted(100), [spec], config=CONFIG)
    (stretched,) = fit(moved(planted(100)), [spec], config=CONFIG)
    (batch,) = planted(1, 50, seed=5)
    x = batch.values[spec.source]
    f, raw = plain.dictionary.encode(x).dense(), stretched.dictionary.encode(7 * x + 11).dense()
    torch.testing.assert_close(raw, 7 * f, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        stretched.dictionary(7 * x + 11), 7 * plain.dictionary(x) + 11, atol=1e-6, rtol=1e-6
    )


def test_decoder_rows_have_unit_norm():
    for trained in fit(planted(100), [SAE, TRANSCODER], config=CONFIG):
        norms = trained.dictionary.W_dec.norm(dim=-1)
        torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-6, rtol=0)


def test_more_features_a_token_than_there_are():
    with pytest.raises(ValueError, match="k is 21"):
        fit(planted(100), [sae(OUT, k=21)], config=CONFIG)


@pytest.mark.parametrize(
    ("spec", "changes", "message"),
    [
        (replace(SAE, signed=True), {}, "dictionaries with negative features are not trained"),
        (replace(SAE, architecture="batch-topk", k=None), {}, "batch-topk is trained with a k"),
        (replace(SAE, architecture="relu"), {"prefixes": (4,)}, "relu has no prefixes"),
    ],
)
def test_what_cannot_be_trained(spec, changes, message):
    with pytest.raises(ValueError, match=message):
        fit(planted(100), [spec], config=replace(CONFIG, **changes))


def test_averaged_weights_lie_between_those_of_the_steps():
    """With a long memory the average stays nearer to where training began."""
    last, averaged = (
        fit(planted(100), [SAE], config=replace(CONFIG, average=a))[0].dictionary
        for a in (0.0, 0.99)
    )
    start = unit_rows(CONFIG.width, D, CONFIG.seed)
    assert (averaged.W_dec - start).norm() < 0.9 * (last.W_dec - start).norm()
    torch.testing.assert_close(averaged.W_dec.norm(dim=-1), torch.ones(CONFIG.width))


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.999])
def test_a_running_mean_is_of_what_was_seen_alone(decay):
    values, mean = [3.0, -1.0, 4.0, 4.5], 100.0
    for count, value in enumerate(values, 1):
        mean += share_of_last(decay, count) * (value - mean)
    weights = [decay ** (len(values) - n) for n in range(1, len(values) + 1)]
    expected = sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
    assert mean == pytest.approx(expected)


def test_averaged_weights_hold_nothing_of_those_before_the_first_step():
    specs = [sae(Site("mlp_out", 0), k=3)]
    first = TrainConfig(width=10, tokens=32, learning_rate=5e-3)
    (plain,) = fit(planted(8), specs, config=first)
    (averaged,) = fit(planted(8), specs, config=TrainConfig(**(vars(first) | {"average": 0.999})))
    for name, value in tensors(plain).items():
        torch.testing.assert_close(tensors(averaged)[name], value)

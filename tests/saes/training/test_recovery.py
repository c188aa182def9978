"""Every architecture finds the features that were planted, and keeps the sparsity it was given."""

from functools import cache

import pytest
import torch

from saes.dictionary import DictionarySpec
from saes.training.loop import TrainConfig, fit
from saes.training.trainer import DictionaryTrainer
from tests.saes.training.test_loop import IN, OUT, PLANTED, D, planted, unit_rows

STEPS, BATCH = 250, 256
ON_A_TOKEN = 3
"Planted features on a token, on average."
RECIPES = {
    "topk": {"k": 4},
    "batch-topk": {"k": ON_A_TOKEN},
    "matryoshka": {"k": ON_A_TOKEN, "prefixes": (24,), "steps": 400, "learning_rate": 1.5e-2},
    # Its thresholds move slowly.
    "jumprelu": {"k": ON_A_TOKEN, "steps": 350},
    "gated": {"k": 4, "steps": 300},
    "relu": {"k": None},
}


@cache
def train(architecture, *sources, k=None, steps=STEPS, learning_rate=2e-2, prefixes=()):
    """A dictionary for each source, all from one stream."""
    specs = [
        DictionarySpec(source=source, target=OUT, architecture=architecture, k=k)
        for source in sources
    ]
    config = TrainConfig(
        width=48, tokens=BATCH * steps, learning_rate=learning_rate, prefixes=prefixes
    )
    return [trained.dictionary for trained in fit(planted(steps, BATCH), specs, config=config)]


def unseen(source=OUT):
    (batch,) = planted(1, 4000, seed=9)
    return batch.pair(source, OUT)


def fvu(y, y_hat):
    return float((y - y_hat).square().sum() / (y - y.mean(0)).square().sum())


@pytest.fixture(scope="module", params=sorted(RECIPES))
def recovered(request):
    found = train(request.param, OUT, IN, **RECIPES[request.param])
    return request.param, dict(zip(("sae", "transcoder"), found, strict=True))


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_planted_features_are_recovered(recovered, kind):
    found = recovered[1][kind].W_dec
    best = (found @ unit_rows(PLANTED, D, 2).T).max(0).values
    assert best.mean() >= 0.95


@pytest.mark.parametrize("kind", ["sae", "transcoder"])
def test_unseen_activations_are_reconstructed_with_as_many_features_as_asked(recovered, kind):
    architecture, dictionaries = recovered
    dictionary = dictionaries[kind]
    x, y = unseen(dictionary.source)
    l0 = float((dictionary.encode(x).dense() > 0).sum(-1).float().mean())
    assert fvu(y, dictionary(x)) < 0.25
    k = RECIPES[architecture]["k"]
    if k is not None:
        assert l0 == pytest.approx(k, rel=0.1)


def test_the_prefixes_of_a_matryoshka_reconstruct_alone():
    """Each longer prefix explains more; a plain dictionary's first half explains less."""
    (nested,) = train("matryoshka", OUT, k=ON_A_TOKEN, prefixes=(12, 24))
    plain, _ = train("batch-topk", OUT, IN, k=ON_A_TOKEN)
    x, y = unseen()

    def of_prefix(dictionary, n):
        f = dictionary.encode(x).dense()
        return fvu(y, f[:, :n] @ dictionary.W_dec[:n] + dictionary.b_dec)

    rising = [of_prefix(nested, n) for n in (12, 24, 48)]
    assert rising[0] > rising[1] > rising[2]
    assert of_prefix(nested, 24) < 0.8 * of_prefix(plain, 24)


def test_a_nested_topk_keeps_its_k():
    (nested,) = train("topk", OUT, k=3, prefixes=(24,), steps=100)
    x, _ = unseen()
    assert nested.spec.architecture == "topk"
    assert (nested.encode(x).dense() > 0).sum(-1).max() <= 3


@pytest.mark.parametrize(("architecture", "most"), [("topk", 1.0), ("jumprelu", 0.05)])
def test_a_skip_connection_takes_what_is_linear(architecture, most):
    """A linear MLP needs no features: the skip connection explains it all."""
    generator = torch.Generator().manual_seed(3)
    matrix = torch.randn(D, D, generator=generator) / D**0.5

    def linear(n):
        for batch in planted(n, BATCH):
            batch.values[OUT] = batch.values[IN] @ matrix.T + 0.3
            yield batch

    k = 1 if architecture == "topk" else None
    spec = DictionarySpec(source=IN, target=OUT, architecture=architecture, k=k, skip=True)
    config = TrainConfig(
        width=24, tokens=BATCH * 200, learning_rate=2e-2, aux_coefficient=0.0, sparsity=10.0
    )
    (trained,) = fit(linear(200), [spec], config=config)
    (batch,) = linear(1)
    x, y = batch.pair(IN, OUT)
    assert fvu(y, trained.dictionary(x)) < 0.005
    assert (trained.dictionary.encode(x).dense() > 0).sum(-1).float().mean() <= most


def test_features_that_no_token_chooses_come_back():
    """Their encoder rows are too short ever to be among the k largest; AuxK finds them."""

    def dead_at_end(coefficient):
        spec = DictionarySpec(source=OUT, target=OUT, k=2)
        config = TrainConfig(width=48, tokens=1, dead_after=BATCH * 10, aux_coefficient=coefficient)
        batches = list(planted(200, BATCH))
        trainer = DictionaryTrainer.begin(spec, batches[:8], config, seed=0)
        trainer.weights.W_enc[24:] *= 0.01
        for step, batch in enumerate(batches):
            trainer.train_step(batch, 5e-3, step)
        return int(trainer.watched.is_dead().sum())

    assert dead_at_end(0.0) == 24
    assert dead_at_end(1 / 32) <= 4

"""A new architecture is a module and a row: it trains, is taken up, saved, loaded and used."""

import json

import pytest
import torch
from typer.testing import CliRunner

from circuits.cli.app import app
from saes.architectures.table import ARCHITECTURES, architecture
from saes.dictionary import DictionarySpec
from saes.formats import ours
from saes.suite import load_suite
from saes.training.loop import TrainConfig, fit
from saes.training.trainer import DictionaryTrainer
from tests.saes.training.test_loop import IN, OUT, assert_same, planted

SPEC = {"source": IN, "target": OUT, "architecture": "toy", "skip": True}
CONFIG = TrainConfig(width=48, tokens=64 * 60, learning_rate=5e-3)


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "toy", "tests.saes.architectures.toy")


def test_a_registered_architecture_trains_is_saved_loaded_and_used(tmp_path):
    spec = DictionarySpec(**SPEC)
    (trained,) = fit(planted(60, 64), [spec], config=CONFIG)
    card = ours.Card(model={}, training=trained.record, metrics={})
    ours.save_dictionary(trained.dictionary, tmp_path / spec.name, card=card)
    ours.save_suite_index(tmp_path, [spec.name])
    (loaded,) = load_suite(tmp_path, mlp="transcoder").values()
    (batch,) = planted(1, 500, seed=3)
    x, y = batch.pair(IN, OUT)
    assert torch.equal(loaded(x), trained.dictionary(x))
    assert (y - loaded(x)).square().sum() < 0.5 * (y - y.mean(0)).square().sum()
    record = json.loads((tmp_path / spec.name / "dictionary.json").read_text())
    assert record["architecture"] == "toy"


def test_its_features_are_folded_by_its_own_formula():
    spec = DictionarySpec(**SPEC)
    batches = list(planted(60, 64))
    trainer = DictionaryTrainer.begin(spec, batches[:8], CONFIG, seed=0)
    for n, batch in enumerate(batches):
        trainer.train_step(batch, 5e-3, n)
    assert trainer.numbers["heat"] == 0.02
    gain = trainer.weights.own["log_gain"].exp()
    assert (gain - gain.mean()).abs().max() > 0.01
    x, _ = batches[0].pair(IN, OUT)
    w = trainer.weights
    f = gain * (trainer.source.apply(x) @ w.W_enc.T + w.b_enc).relu()
    raw = trainer.finish().encode(x).dense() * trainer.target.scale
    torch.testing.assert_close(raw, f, atol=1e-4, rtol=1e-4)


def test_it_is_taken_up_from_a_snapshot_to_the_same_weights():
    spec, kept = DictionarySpec(**SPEC), []
    config = TrainConfig(**(vars(CONFIG) | {"average": 0.5}))

    def keep(snapshot):
        if len(kept) < 12:
            kept.append(snapshot())

    (whole,) = fit(planted(60, 64), [spec], config=config, keep=keep)
    after = kept[-1]
    rest = list(planted(60, 64))[after.step :]
    (resumed,) = fit(rest, [spec], config=config, after=after)
    assert_same(whole, resumed, atol=0, rtol=0)


def test_an_unknown_architecture_lists_it_too():
    with pytest.raises(ValueError, match="no architecture is called 'l1': expected .*, toy"):
        DictionarySpec(source=OUT, target=OUT, architecture="l1")


def test_the_command_line_offers_those_of_the_table():
    shown = CliRunner().invoke(app, ["train", "--help"], env={"COLUMNS": "200"}).output
    assert all(name in shown for name in ARCHITECTURES if name != "toy")


@pytest.mark.parametrize("name", ["topk", "batch-topk", "jumprelu", "relu", "gated", "matryoshka"])
def test_every_row_leads_to_an_architecture(name):
    assert callable(architecture(name).step)

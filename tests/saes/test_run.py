"""A training run: held-out text stays held out, and the folder is whole or absent."""

import json
import string
from dataclasses import asdict
from functools import partial

import pytest
import torch

from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from saes import run
from saes.metrics import evaluate, held_out_blocks
from saes.run import train_suite
from saes.sae import sae
from saes.suite import load_suite
from saes.training import TrainConfig
from tests.conftest import toy_hf, toy_tokenizer
from transcoders.transcoder import transcoder

SPECS = [transcoder(1, k=3), sae(Site("mlp_out", 1), k=3), sae(Site("attn_out", 0), k=2)]
STREAM = StreamConfig(block_length=8, blocks_per_pass=2, batch_size=16, buffer_size=32)
CONFIG = TrainConfig(width=10, tokens=16 * 12)
HELD_OUT, TRAINED = "cdefgh" * 20, "uvwxyz" * 30


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(run, "HELD_OUT_CHARACTERS", len(HELD_OUT))
    monkeypatch.setattr(run, "held_out_blocks", partial(held_out_blocks, length=8))


@pytest.fixture
def model():
    return hook(toy_hf("qwen3", torch.float32), tokenizer=toy_tokenizer(), name="toy")


def texts():
    """The first `HELD_OUT_CHARACTERS` end in the middle of a text."""
    yield HELD_OUT[:50]
    yield HELD_OUT[50:] + TRAINED[:40]
    yield TRAINED[40:]


def train(model, out, **changes):
    options = {"config": CONFIG, "stream": STREAM, "evaluation_tokens": 64} | changes
    return train_suite(model, SPECS, options.pop("texts", texts), out, **options)


def test_a_run_writes_a_suite_that_loads_with_its_quality(model, tmp_path):
    quality = train(model, tmp_path / "suite")
    names = ["mlp_in.1-mlp_out.1", "mlp_out.1", "attn_out.0"]
    assert json.loads((tmp_path / "suite/suite.json").read_text())["dictionaries"] == sorted(names)
    assert set(load_suite(tmp_path / "suite")) == {Site("attn_out", 0), Site("mlp_out", 1)}
    for name, figures in zip(names, quality, strict=True):
        record = json.loads((tmp_path / "suite" / name / "dictionary.json").read_text())
        assert record["metrics"] == asdict(figures)
        assert record["model"] == {"name": "toy", "d_model": 24}
        assert record["training"]["stream"] == asdict(STREAM)
        assert record["training"]["width"] == CONFIG.width


def seen_tokens(model, monkeypatch):
    """Tokens of every text that the run turned into activations, training first."""
    seen = []
    whole = run.activation_batches

    def spy(model, sites, texts, *, config):
        def watched():
            for text in texts:
                seen.append(text)
                yield text

        return whole(model, sites, watched(), config=config)

    monkeypatch.setattr(run, "activation_batches", spy)
    return seen


def test_training_sees_all_but_the_held_out_text_as_often_as_it_needs(model, tmp_path, monkeypatch):
    read = seen_tokens(model, monkeypatch)
    train(model, tmp_path / "suite", config=TrainConfig(width=10, tokens=16 * 40))
    assert set("".join(read)) == set(TRAINED)
    assert "".join(read)[: 2 * len(TRAINED)] == 2 * TRAINED


def test_quality_is_of_the_held_out_text(model, tmp_path, monkeypatch):
    judged = []
    monkeypatch.setattr(
        run, "evaluate", lambda m, d, blocks, **k: judged.append(blocks) or evaluate(m, d, blocks)
    )
    train(model, tmp_path / "suite")
    stream = toy_tokenizer()(HELD_OUT[:50])["input_ids"] + [0]
    stream += toy_tokenizer()(HELD_OUT[50:])["input_ids"]
    assert judged[0].flatten().tolist() == stream[:64]


@pytest.mark.parametrize("fails", ["fit", "evaluate", "_write"])
def test_a_run_that_fails_leaves_the_old_folder(model, tmp_path, monkeypatch, fails):
    out = tmp_path / "suite"
    train(model, out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def fail(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr(run, fails, fail)
    with pytest.raises(OSError, match="the disk is full"):
        train(model, out)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [out]


def test_a_corpus_with_nothing_left_to_train_on(model, tmp_path):
    opened = []

    def short():
        opened.append(1)
        assert len(opened) < 100, "opened a hundred times"
        return iter([string.ascii_letters])

    with pytest.raises(ValueError, match="text"):
        train(model, tmp_path / "suite", texts=short)


def test_a_run_that_cannot_be_judged_says_so_before_it_trains(model, tmp_path, monkeypatch):
    monkeypatch.setattr(run, "fit", lambda *_, **__: pytest.fail("trained first"))
    with pytest.raises(ValueError, match="tokens"):
        train(model, tmp_path / "suite", evaluation_tokens=5)

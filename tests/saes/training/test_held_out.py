"""The text that is held out of a training to judge on."""

import pytest
import torch

from saes.evaluation.metrics import held_out_blocks
from saes.training import held_out
from saes.training.loop import TrainConfig
from tests.saes.training.test_run import (
    HELD_OUT,
    TRAINED,
    cached,
    dictionaries_in,
    texts,
    toy_with_tokenizer,
    train,
)
from tests.toys import toy_tokenizer


@pytest.fixture
def model():
    return toy_with_tokenizer()


@pytest.fixture
def read(model):
    """The tokens that the model reads, pass by pass: those to train on, then those to judge on."""
    passes = {"training": [], "evaluating": []}
    now = ["training"]

    def seen(_, given):
        passes[now[0]].append(given[0].clone())

    def stage(what, done, total):
        now[0] = what

    handle = model.embed.register_forward_pre_hook(seen)
    yield passes, stage
    handle.remove()


def test_training_sees_all_but_the_held_out_text_as_often_as_it_needs(model, tmp_path, read):
    passes, stage = read
    config = TrainConfig(width=10, tokens=16 * 40)
    train(model, tmp_path / "suite", config=config, report_stage=stage)
    tokens = torch.cat([one.flatten() for one in passes["training"]]).tolist()
    text = toy_tokenizer().decode([token for token in tokens if token != 0])
    assert set(text) == set(TRAINED)
    assert text[: 2 * len(TRAINED)] == 2 * TRAINED


def test_quality_is_of_the_held_out_text(model, tmp_path, read):
    passes, stage = read
    train(model, tmp_path / "suite", report_stage=stage)
    stream = toy_tokenizer()(HELD_OUT[:50])["input_ids"] + [0]
    stream += toy_tokenizer()(HELD_OUT[50:])["input_ids"]
    assert passes["evaluating"]
    for one in passes["evaluating"]:
        assert one.flatten().tolist() == stream[:128]


def test_a_cache_has_the_text_to_judge_on(model, tmp_path):
    blocks = held_out_blocks(held_out.held_out_text(texts()), model, tokens=128)
    cache = cached(model, tmp_path / "cache", held_out=blocks)
    quality = train(model, tmp_path / "with-text", cache=cache)
    assert train(model, tmp_path / "without", texts=None, cache=cache) == quality
    assert dictionaries_in(tmp_path / "with-text") == dictionaries_in(tmp_path / "without")


def test_nothing_to_judge_or_train_on_is_said(model, tmp_path):
    with pytest.raises(ValueError, match="nothing to train on: give a text, or activations"):
        train(model, tmp_path / "suite", texts=None)
    with pytest.raises(ValueError, match=r"without text to judge on: give a text too \(--text\)"):
        train(model, tmp_path / "suite", texts=None, cache=cached(model, tmp_path / "cache"))
    assert not (tmp_path / "suite").exists()

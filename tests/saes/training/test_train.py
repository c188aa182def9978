"""What a user starts: a suite from text or a cache, told of while it goes on."""

import time
from functools import partial

import pytest

from hooked_qwen.shards import Cache
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from saes.sae import sae
from saes.suite import load_suite
from saes.training import train
from saes.training.config import TrainConfig
from saes.training.held_out import HELD_OUT_CHARACTERS
from tests.toys import speaking_toy

SPEC = sae(Site("mlp_out", 1), k=3)
STREAM = StreamConfig(block_length=8, blocks_per_pass=2, batch_size=16, buffer_size=32)
CONFIG = TrainConfig(width=10, tokens=16 * 12)


@pytest.fixture
def model():
    return speaking_toy("qwen3")


def texts():
    """What is held out, and what is trained on."""
    yield "cdefgh" * (HELD_OUT_CHARACTERS // 6) + "uvwx"
    yield "uvwxyz" * 40


def test_a_training_tells_how_it_goes(model, tmp_path):
    told = []
    options = {"config": CONFIG, "stream": STREAM, "report": lambda *of: told.append(of)}
    (quality,) = train.train(model, [SPEC], texts, tmp_path / "suite", **options)
    stages = [what for what, *_ in told]
    assert stages[0] == "first activations"
    assert {"training", "evaluating", "writing"} <= set(stages)
    steps = [of for of in told if of[0] == "training"]
    assert [of[1:3] for of in steps] == [(n, 12) for n in range(1, 13)]
    assert all(note.startswith("loss ") and note.endswith("/s") for *_, note in steps)
    assert quality.l0 == pytest.approx(3, abs=0.2)
    assert set(load_suite(tmp_path / "suite")) == {str(SPEC.target)}


@pytest.mark.parametrize(("seconds", "notes"), [(0.3, [1, 5, 9, 12]), (1.0, range(1, 13))])
def test_what_is_shown_of_a_training_is_read_once_a_second(
    model, tmp_path, monkeypatch, seconds, notes
):
    """Reading it makes the host wait for a device; until then the last note stands."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    told = []

    def report(what, done, total, note=""):
        if what == "training":
            told.append(note.rpartition(", ")[0])
            now[0] += seconds

    train.train(model, [SPEC], texts, tmp_path, config=CONFIG, stream=STREAM, report=report)
    assert [1 + i for i, note in enumerate(told) if note != told[i - 1] or i == 0] == list(notes)


def test_a_training_from_a_cache_is_that_from_the_text(model, tmp_path):
    written = train.cache_activations(
        model, [SPEC.source], texts, tmp_path / "cache", tokens=16 * 12, stream=STREAM
    )
    assert written.tokens == 16 * 12
    assert Cache.open(tmp_path / "cache").held_out() is not None
    options = {"config": CONFIG, "stream": STREAM}
    live = train.train(model, [SPEC], texts, tmp_path / "live", **options)
    cache = tmp_path / "cache"
    cached = train.train(model, [SPEC], None, tmp_path / "cached", cache=cache, **options)
    assert cached == live


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (partial(train.train, config=CONFIG), "training 1 dictionary takes about .* GB"),
        (partial(train.cache_activations, tokens=64), "a buffer of 1 site takes about .* GB"),
    ],
    ids=["train", "cache"],
)
def test_what_does_not_fit_the_memory_is_refused_before_it_begins(model, tmp_path, start, message):
    what = [SPEC] if start.func is train.train else [SPEC.source]
    with pytest.raises(ValueError, match=message):
        start(model, what, texts, tmp_path / "out", stream=STREAM, memory=1e-6)
    assert not (tmp_path / "out").exists()

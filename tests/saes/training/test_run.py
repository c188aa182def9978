"""A training run: held-out text stays held out, and the folder is whole or absent."""

import json
import shutil
import string
from dataclasses import asdict, replace

import pytest
import torch

from hooked_qwen.identity import identity
from hooked_qwen.shards import write_cache
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.tensor_files import read_tensors_and_metadata
from saes.sae import sae
from saes.suite import load_suite
from saes.training import held_out, run
from saes.training.held_out import HELD_OUT_CHARACTERS
from saes.training.loop import TrainConfig
from saes.training.run import RunOptions, check_place, cut_off, train_suite
from tests.toys import speaking_toy
from transcoders.transcoder import transcoder

SPECS = [transcoder(1, k=3), sae(Site("mlp_out", 1), k=3), sae(Site("attn_out", 0), k=2)]
STREAM = StreamConfig(block_length=8, blocks_per_pass=2, batch_size=16, buffer_size=32)
CONFIG = TrainConfig(width=10, tokens=16 * 12)
HELD_OUT, TRAINED = "cdefghij" * (HELD_OUT_CHARACTERS // 8), "uvwxyz" * 30


@pytest.fixture
def model():
    return toy_with_tokenizer()


def toy_with_tokenizer():
    return speaking_toy("qwen3", torch.float32)


def texts():
    """What is held out ends in the middle of a text."""
    yield HELD_OUT[:50]
    yield HELD_OUT[50:] + TRAINED[:40]
    yield TRAINED[40:]


def train(model, out, **changes):
    options = {"config": CONFIG, "stream": STREAM, "evaluation_tokens": 128} | changes
    specs, source = options.pop("specs", SPECS), options.pop("texts", texts)
    return train_suite(model, specs, source, out, **options)


def test_a_run_writes_a_suite_that_loads_with_its_quality(model, tmp_path):
    quality = train(model, tmp_path / "suite")
    names = ["mlp_in.1-mlp_out.1", "mlp_out.1", "attn_out.0"]
    assert json.loads((tmp_path / "suite/suite.json").read_text())["dictionaries"] == sorted(names)
    assert set(load_suite(tmp_path / "suite")) == {"attn_out.0", "mlp_out.1"}
    for name, figures in zip(names, quality, strict=True):
        record = json.loads((tmp_path / "suite" / name / "dictionary.json").read_text())
        assert record["metrics"] == asdict(figures)
        assert record["model"] == {"name": "toy", "hash": identity(model), "d_model": 24}
        assert record["training"]["stream"] == asdict(STREAM)
        assert record["training"]["width"] == CONFIG.width


def dictionaries_in(out):
    files = [path for path in out.rglob("*") if path.is_file() and path.name != "training.jsonl"]
    return {path.relative_to(out): path.read_bytes() for path in files}


def fail(*_, **__):
    raise OSError("the disk is full")


def fail_at(stage):
    """A report that fails at a stage."""
    return lambda what, done, total: fail() if what == stage else None


@pytest.mark.parametrize("stage", ["training", "evaluating", "writing"])
def test_a_run_that_fails_leaves_the_old_folder(model, tmp_path, monkeypatch, stage):
    out = tmp_path / "suite"
    train(model, out)
    before = dictionaries_in(out)
    if stage == "writing":
        # The last file of a new folder: all others are written by then.
        monkeypatch.setattr(shutil, "copyfile", fail)
    options = {"report": fail} if stage == "training" else {"report_stage": fail_at(stage)}
    with pytest.raises(OSError, match="the disk is full"):
        train(model, out, **({} if stage == "writing" else options))
    assert dictionaries_in(out) == before
    assert list(tmp_path.iterdir()) == [out]


class Killed(Exception):
    pass


def killed_at(step):
    """A report that ends the run after some step, when its checkpoint is written."""

    def report(now):
        if now.step == step + 1:
            raise Killed

    return report


EACH_STEP = RunOptions(checkpoint_every=0.0)
GO_ON = RunOptions(checkpoint_every=0.0, resume=True)
MIXED = [
    transcoder(1, k=3, skip=True),
    sae(Site("mlp_out", 1), k=3, architecture="batch-topk"),
    sae(Site("attn_out", 0), k=2, architecture="jumprelu"),
    sae(Site("resid_post", 0), k=2, architecture="gated"),
    sae(Site("resid_post", 1), k=2, architecture="matryoshka"),
]


CHANGES = {
    "specs": MIXED,
    "config": TrainConfig(width=10, tokens=16 * 30, dead_after=40, average=0.5),
    "stream": replace(STREAM, reuse=2),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What a run that nothing cuts off ends with."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(toy_with_tokenizer(), out, **CHANGES)
    return dictionaries_in(out)


@pytest.mark.parametrize("step", [3, 8, 9, 15, 28])
def test_a_run_that_goes_on_ends_with_the_same_weights(model, whole, tmp_path, step):
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", options=EACH_STEP, report=killed_at(step), **CHANGES)
    assert not (tmp_path / "cut/suite.json").exists()
    steps = []
    train(
        model,
        tmp_path / "cut",
        options=GO_ON,
        report=lambda now: steps.append(now.step),
        **CHANGES,
    )
    # Before the eighth step there is nothing to go on from.
    assert steps[0] == (step + 1 if step >= 8 else 1)
    assert whole == dictionaries_in(tmp_path / "cut")
    assert not (tmp_path / "cut/checkpoint.safetensors").exists()


def test_the_log_of_a_run_that_went_on_has_each_line_once(model, tmp_path, small_chunks):
    small_chunks("saes.training.log.LOG_EVERY", 4)
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", options=EACH_STEP, report=killed_at(9))
    with (tmp_path / "cut/training.jsonl").open("a") as log:
        log.write('{"step": 99}\n{"ste')
    train(model, tmp_path / "cut", options=GO_ON)
    lines = [json.loads(x) for x in (tmp_path / "cut/training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8, 12]
    assert set(lines[0]["dictionaries"]) == {s.name for s in SPECS}
    assert set(lines[0]["dictionaries"]["mlp_out.1"]) == {"loss", "fvu", "l0", "dead"}
    assert 0 <= lines[0]["model_share"] <= 1
    assert lines[0]["tokens_per_second"] > 0


def test_another_run_does_not_go_on_from_a_checkpoint(model, tmp_path):
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", options=EACH_STEP, report=killed_at(9))
    other = replace(CONFIG, width=11)
    with pytest.raises(ValueError, match="is of another training run: width was 10, is 11"):
        train(model, tmp_path / "cut", options=GO_ON, config=other)


def test_a_broken_checkpoint_is_named(model, tmp_path):
    place = tmp_path / "cut/checkpoint.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"no safetensors")
    with pytest.raises(ValueError, match=r"checkpoint\.safetensors is not a readable checkpoint"):
        train(model, tmp_path / "cut", options=GO_ON)


def test_training_from_a_cache_gives_the_same_dictionaries(model, tmp_path):
    sites = sorted({site for spec in SPECS for site in (spec.source, spec.target)})
    read = held_out.training_text(texts)
    cache = write_cache(model, sites, read, tmp_path / "cache", config=STREAM, tokens=16 * 12)
    train(model, tmp_path / "live")
    train(model, tmp_path / "cached", cache=cache)
    assert dictionaries_in(tmp_path / "live") == dictionaries_in(tmp_path / "cached")


def cached(model, out, **options):
    sites = sorted({site for spec in SPECS for site in (spec.source, spec.target)})
    read = held_out.training_text(texts)
    chosen = {"config": STREAM, "tokens": 16 * 12} | options
    return write_cache(model, sites, read, out, **chosen)


def another_start():
    return iter(["g" + HELD_OUT[1:], TRAINED])


def another_order():
    return iter([HELD_OUT[:50], HELD_OUT[50:] + TRAINED[:40], TRAINED[41:] + "u"])


def shorter():
    return iter([HELD_OUT[:50], HELD_OUT[50:] + TRAINED[:40]])


@pytest.mark.parametrize(
    ("other", "match"),
    [
        (another_start, "is of another training run: held-out tokens was"),
        (another_order, "the text is not the one that was read before: the first 2 texts differ"),
        (shorter, "the text is not the one that was read before"),
    ],
)
def test_training_does_not_go_on_with_another_text(model, tmp_path, other, match):
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", options=EACH_STEP, report=killed_at(9))
    with pytest.raises(ValueError, match=match):
        train(model, tmp_path / "cut", options=GO_ON, texts=other)
    assert cut_off(tmp_path / "cut")


def test_training_goes_on_with_a_text_that_has_grown(model, tmp_path):
    """Only what was read decides."""

    def grown():
        yield from texts()
        yield "more" * 100

    with pytest.raises(Killed):
        train(model, tmp_path / "cut", options=EACH_STEP, report=killed_at(8))
    position = json.loads(
        read_tensors_and_metadata(tmp_path / "cut" / run.CHECKPOINT)[1]["position"]
    )
    assert position["texts"] == 2
    train(model, tmp_path / "cut", options=GO_ON, texts=grown)


def test_training_does_not_go_on_with_another_cache(model, tmp_path):
    options = {"cache": cached(model, tmp_path / "one"), "report": killed_at(9)}
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", options=EACH_STEP, **options)
    longer = cached(model, tmp_path / "longer", tokens=16 * 20)
    with pytest.raises(ValueError, match="is of another training run: cache was"):
        train(model, tmp_path / "cut", options=GO_ON, cache=longer)


def test_where_a_run_may_write(model, tmp_path):
    check_place(tmp_path / "new")
    train(model, tmp_path / "done")
    with pytest.raises(ValueError, match="it holds dictionaries: choose another folder"):
        check_place(tmp_path / "done")
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", options=EACH_STEP, report=killed_at(9))
    assert cut_off(tmp_path / "cut")
    assert not cut_off(tmp_path / "done")
    check_place(tmp_path / "cut")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file is a file"):
        check_place(tmp_path / "file")
    with pytest.raises(ValueError, match="is not empty: choose another folder, or remove it"):
        check_place(tmp_path)


def test_a_run_that_is_started_over_forgets_the_checkpoint(model, tmp_path):
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", options=EACH_STEP, report=killed_at(9))
    train(model, tmp_path / "cut")
    train(model, tmp_path / "whole")
    assert dictionaries_in(tmp_path / "cut") == dictionaries_in(tmp_path / "whole")


def test_a_corpus_with_nothing_left_to_train_on(model, tmp_path):
    opened = []

    def short():
        opened.append(1)
        assert len(opened) < 100, "opened a hundred times"
        return iter([string.ascii_letters])

    with pytest.raises(ValueError, match="text"):
        train(model, tmp_path / "suite", texts=short)


def test_a_run_that_cannot_be_judged_says_so_before_it_trains(model, tmp_path):
    def trained(now):
        pytest.fail("trained first")

    with pytest.raises(ValueError, match="tokens"):
        train(model, tmp_path / "suite", evaluation_tokens=5, report=trained)

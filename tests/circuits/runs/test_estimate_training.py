"""What `train --dry-run` tells: the counts hold, and nothing is loaded or written."""

from functools import cache

import pytest

from circuits.runs import estimate_training as estimate
from hooked_qwen.placement import Placement
from hooked_qwen.stream import StreamConfig
from saes.training.config import TrainConfig
from saes.training.memory import training_bytes
from tests.circuits.conftest import call
from transcoders.specs import dictionary_specs

CONFIG = TrainConfig(width=64, tokens=4096)
STREAM = StreamConfig(batch_size=512, buffer_size=2048)


@cache
def told(layers=(0, 3), *, stream=STREAM, config=CONFIG, **options):
    specs = dictionary_specs(["saes", "transcoders"], layers, ["resid_post"], k=3)
    found = estimate.estimate_training(
        specs, model="bundled", config=config, stream=stream, placement=Placement(), **options
    )
    return specs, found


def amounts(items):
    return {item.name: item.amount for item in items}


def test_the_model_reads_whole_buffers_once_for_all_that_is_trained_on():
    _, once = told()
    # 8 batches of 512, two for each buffer of 2,048 tokens filled by one pass of 16 blocks.
    assert once.tokens == 4096
    _, often = told(stream=StreamConfig(batch_size=512, buffer_size=2048, reuse=2))
    assert often.tokens == 2048
    _, cached = told(cached=True)
    assert cached.tokens == 0
    assert "the model reads" not in amounts(cached.times)
    assert any("cache" in line for line in cached.assumed)


def test_more_than_the_memory_given_is_refused_as_a_training_does():
    specs = dictionary_specs(["saes"], (0,), ["resid_post"], k=3)
    with pytest.raises(ValueError, match=r"training 1 dictionary takes about .* GB beside the"):
        estimate.estimate_training(
            specs,
            model="bundled",
            config=CONFIG,
            stream=STREAM,
            placement=Placement(memory=0.001),
        )


def test_memory_is_what_a_training_refuses_by_and_the_weights():
    specs, found = told()
    memory = amounts(found.memory)
    # 1.76 million weights of four bytes, and tables of angles.
    assert memory["model"] == pytest.approx(4 * 1.76e6, rel=0.02)
    assert memory["while training"] > training_bytes(specs, 128, CONFIG, STREAM)
    assert memory["its copy in bfloat16"] == 0
    asked = told(harvest="bfloat16")[1]
    assert amounts(asked.memory)["its copy in bfloat16"] == memory["model"] // 2
    assert found.peak == sum(memory.values()) - min(
        memory["while training"], memory["while judging"]
    )


def test_deeper_sites_and_more_dictionaries_take_longer():
    def reading(layers):
        (item,) = (i for i in told(layers)[1].times if i.name == "the model reads")
        return item.note

    assert "1 of 5 layers" in reading((0,))
    assert "4 of 5 layers" in reading((0, 3))
    found = told()[1]
    assert found.dictionaries == 4
    assert found.seconds == sum(item.amount for item in found.times)
    assert all(item.amount >= 0 for item in found.times)


def test_the_command_trains_nothing(tmp_path):
    done = call(
        "train", "saes", "--text", "bundled", "--width", 64, "--k", 3, "--tokens", 4096,
        "--out", tmp_path / "out", "--dry-run",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out").exists()
    assert "15 dictionaries:" in done.output
    assert "4 steps of each dictionary" in done.output

"""GRPO with one rollout of each group steered, on the bundled model."""

import json

import pytest
import torch
from safetensors.torch import load_file

from circuits.runs.trained import (
    TrainedConfig,
)
from circuits.runs.training_texts import rows_of
from hooked_qwen.load import load_tokenizer
from hooked_qwen.plain_model import load_plain
from saes.scope.chosen_features import firing
from saes.suite import load_suite
from tests.circuits.conftest import call
from tests.circuits.scope.tuning_texts import FEATURE, SMALL

pytest.importorskip("trl")


def test_a_dry_run_of_grpo_counts_what_is_written(texts, tmp_path):
    done = call(
        "reinforce", "bundled", "--feature", FEATURE, "--prompts", texts / "prompts.jsonl",
        "--held-out", texts / "clean.jsonl", "--lora", 8, "--dry-run", "--steps", 10,
        "--group", 4, "--prompts-in-step", 2, "--tokens", 6, "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "112,640 of 1,867,456 weights trained, 3 times" in said
    # 3 arms, 10 steps, 2 passes of 4 texts each, 6 tokens written in each text.
    assert "60 passes" in said
    assert "of 3 texts; 1,440 tokens written" in said
    assert not (tmp_path / "out").exists()


def test_one_rollout_of_each_group_is_steered(texts, tmp_path):
    out = tmp_path / "rl"
    done = call(
        "reinforce", "bundled", "--feature", FEATURE, "--prompts", texts / "prompts.jsonl",
        "--held-out", texts / "clean.jsonl", "--steps", 2, "--group", 3, *SMALL,
        "--learning-rate", 0.001, "--device", "cpu", "--dtype", "bfloat16", "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    record = json.loads((out / "tune.json").read_text())
    names = ["before", "vanilla GRPO", "one rollout steered", "steered at random"]
    assert list(record["arms"]) == names
    assert record["texts"] == {"trained_on": 3, "judged_on": 3, "held_out": {"clean.jsonl": 24}}
    assert [len(record["arms"][name]["curve"]) for name in names[1:]] == [2, 2, 2]
    assert {x.dtype for x in load_file(out / "model.safetensors").values()} == {torch.bfloat16}
    assert (out / "tokenizer_config.json").exists()
    # Without steering the first rollouts are as the others; the same draws are made.
    vanilla, steered = (record["arms"][name]["curve"][0] for name in names[1:3])
    assert vanilla["others"] == steered["others"]


def test_a_feature_that_is_never_on_has_no_unit(texts, tmp_path, fails):
    config = TrainedConfig(longest=24, texts=24)
    rows = rows_of(load_tokenizer("bundled"), [texts / "clean.jsonl"], config)
    name, suite = "resid_post.3", load_suite("bundled")
    largest = firing(load_plain("bundled", device="cpu"), suite, [name], rows)[name].largest
    feature = f"{name}/{int((largest == 0).nonzero()[0])}"
    said = fails(
        "reinforce", "bundled", "--held-out", texts / "clean.jsonl", "--feature", feature,
        "--prompts", texts / "prompts.jsonl", *SMALL, "--out", tmp_path / "rl",
    )  # fmt: skip
    assert f"{feature} is on at no token" in said
    assert not (tmp_path / "rl").exists()

"""`circuits tune` and `circuits reinforce` on the bundled model, and what they write."""

import json
from itertools import islice

import pytest
import torch
from safetensors.torch import load_file

from circuits import scope
from circuits.cli.tune_tables import tell
from circuits.render.charts.tune_figure import tune_figure
from circuits.runs.trained import (
    TrainedConfig,
)
from circuits.runs.training_texts import rows_of
from hooked_qwen.bundled import language
from hooked_qwen.load import load_tokenizer
from hooked_qwen.plain_model import load_plain
from saes.scope.chosen_features import firing
from saes.suite import load_suite
from tests.circuits.conftest import call
from tests.circuits.printed import printed

pytest.importorskip("trl")
FEATURE = "resid_post.3/86"
SMALL = ("--longest", 24, "--texts", 24, "--tokens", 6, "--samples", 2, "--quiet")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Texts of the bundled model's language, and the beginnings of others."""
    folder = tmp_path_factory.mktemp("texts")
    documents = list(islice(language.documents(seed=5), 30))
    for name, some in {"train": documents[:20], "clean": documents[20:]}.items():
        lines = (json.dumps({"text": text}) for text in some)
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    heads = (json.dumps({"text": " ".join(text.split()[:5])}) for text in documents[:6])
    (folder / "prompts.jsonl").write_text("\n".join(heads))
    return folder


@pytest.fixture(scope="module")
def tuned(texts, tmp_path_factory):
    """What the command writes."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    command = (
        "tune", "bundled", "--feature", FEATURE, "--text", texts / "train.jsonl",
        "--prompts", texts / "prompts.jsonl", "--held-out", texts / "clean.jsonl",
        "--behaviour", "repetition", "--lambda", 1.0, "--learning-rate", 0.01, "--steps", 4,
        "--batch", 4, "--lora", 2, *SMALL, "--device", "cpu", "--out", out,
    )  # fmt: skip
    done = call(*command)
    assert done.exit_code == 0, done.output
    return command, out


def test_the_record_has_every_model_and_control(tuned):
    _, out = tuned
    record = json.loads((out / "tune.json").read_text())
    arms = record["arms"]
    assert list(arms) == ["before", "lambda 0", "chosen features", "random features"]
    for arm in arms.values():
        assert 0 <= arm["behaviour"]["mean"] <= 1
        assert len(arm["by_prompt"]) == 6
        assert arm["cross_entropy"]["clean.jsonl"]["interval"]
    assert record["features"][0]["feature"] == FEATURE
    (random,) = record["random_features"]
    assert random["feature"].startswith("resid_post.3/")
    assert random["feature"] != FEATURE
    on = {
        name: arm["activation"]["chosen features"]["clean.jsonl"]["pre_activation"]
        for name, arm in arms.items()
    }
    assert on["chosen features"] < on["lambda 0"]
    assert set(record["against"]["lambda 0"]) == {"chosen features", "random features"}


def test_the_model_that_is_written_is_the_one_that_was_judged(tuned, texts):
    _, out = tuned
    record = json.loads((out / "tune.json").read_text())
    again = scope.tune(
        "bundled",
        str(out),
        feature=[FEATURE],
        text=[str(texts / "train.jsonl")],
        prompts=[str(texts / "prompts.jsonl")],
    )
    sizes = record["arms"]["lambda 0"]
    assert again["weights"] == sizes["weights"] - sizes["trained"]
    found = call("features", "search", "bundled", "--token", " sit", "--model", out)
    assert found.exit_code == 0, found.output


def test_what_is_said_names_the_measure_and_shows_what_every_model_writes(tuned):
    record = json.loads((tuned[1] / "tune.json").read_text())
    said = " ".join(printed(tell, record, tuned[1], dry_run=False).split())
    assert "repetition, chosen features − lambda 0: " in said
    _, _, written = said.partition("written after ")
    assert all(f"{name}: " in written for name in record["arms"])


def test_the_same_command_replaces_and_another_does_not(tuned, fails):
    command, out = tuned
    other = [*command]
    other[other.index("--steps") + 1] = 5
    assert "is there already, made from something else" in fails(*other)
    assert (out / "adapter_model.safetensors").exists()


def test_a_dry_run_trains_nothing(texts, tmp_path):
    done = call(
        "tune", "bundled", "--feature", FEATURE, "--text", texts / "train.jsonl",
        "--prompts", texts / "prompts.jsonl", "--lora", 8, "--dry-run", "--steps", 10,
        "--trainer", "gradient_accumulation_steps=4", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "112,640 of 1,867,456 weights trained, 3 times" in said
    assert "120 passes" in said
    assert f"features {FEATURE}" in said
    assert not (tmp_path / "out").exists()


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


def test_what_cannot_be_done_is_said_in_one_line(texts, tmp_path, fails):
    train, prompts = texts / "train.jsonl", texts / "prompts.jsonl"
    given = ("tune", "bundled", "--text", train, "--prompts", prompts)
    out = ("--out", tmp_path / "out")
    assert "give a folder for the model with --out" in fails(*given, "--feature", FEATURE)
    assert "no feature is named" in fails(*given, *out)
    assert "is a file: give a folder" in fails(*given, "--feature", FEATURE, "--out", train)
    named = (*given, "--feature", FEATURE, *out)
    assert "is to be trained on and held out" in fails(*named, "--held-out", train)
    assert "--alpha is 'much'" in fails(*named, "--alpha", "much")
    assert "--trainer is 'bf16'" in fails(*named, "--trainer", "bf16")
    no_such = ("--trainer", "bf17=true")
    assert "it has no 'bf17': did you mean bf16?" in fails(*named, *no_such, "--dry-run")
    assert "longest is 2: expected at least 8" in fails(*named, "--longest", 2)
    assert "the rank is 0" in fails(*named, "--lora", 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("")
    assert "holds something else" in fails(*named)
    one = tmp_path / "one.jsonl"
    one.write_text(json.dumps({"text": "The boys sit. The girl stands by the old house. A dog"}))
    assert "one text only" in fails(
        "tune", "bundled", "--text", one, "--prompts", prompts, "--feature", FEATURE, *out
    )
    assert "no behaviour is called 'rude'" in fails(*named, "--behaviour", "rude")
    rl = ("reinforce", "bundled", "--held-out", train, "--out", tmp_path / "rl")
    assert "one prompt only" in fails(*rl, "--prompts", one, "--feature", FEATURE)
    said = fails(*rl, "--prompts", prompts, "--feature", FEATURE, *no_such)
    assert "GRPOConfig does not take that" in said


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


def test_a_figure_has_a_row_for_each_model(tuned, tmp_path):
    _, out = tuned
    record = json.loads((out / "tune.json").read_text())
    drawn = (out / "tune.svg").read_text()
    for name in (*record["arms"], "clean", f"lambda {record['lambda']:.3g}", "○ random"):
        assert name in drawn
    assert "clean.jsonl" not in drawn
    with pytest.raises(ValueError, match="a figure is written as"):
        tune_figure(record, tmp_path / "tune.gif")

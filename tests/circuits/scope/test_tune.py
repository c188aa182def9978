"""`circuits tune` and `circuits reinforce` on the bundled model, and what they write."""

import json

import pytest

from circuits import scope
from circuits.cli.tune_tables import tell
from circuits.render.charts.tune_figure import tune_figure
from tests.circuits.conftest import call
from tests.circuits.printed import printed
from tests.circuits.scope.tuning_texts import FEATURE, SMALL

pytest.importorskip("trl")


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


def test_a_figure_has_a_row_for_each_model(tuned, tmp_path):
    _, out = tuned
    record = json.loads((out / "tune.json").read_text())
    drawn = (out / "tune.svg").read_text()
    for name in (*record["arms"], "clean", f"lambda {record['lambda']:.3g}", "○ random"):
        assert name in drawn
    assert "clean.jsonl" not in drawn
    with pytest.raises(ValueError, match="a figure is written as"):
        tune_figure(record, tmp_path / "tune.gif")

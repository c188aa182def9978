"""What a rerun is of: what goes together, and what decides the result."""

import json
from pathlib import Path

import pytest

from circuits.edits.side_effects import SideEffectsConfig
from circuits.runs.rerun_inputs import Rerun, open_run, open_without_run
from hooked_qwen.files import content_hash
from hooked_qwen.nodes import Node
from hooked_qwen.placement import Placement
from hooked_qwen.progress import silent
from saes.edit_file import Edit, Operation
from transcoders.interventions import Mode

EDIT = Edit(operations=(Operation(node=Node("mlp_out.0", 1), do="zero"),))
FROZEN = Mode(attention="frozen")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "say what to run again with --run, --prompts, --text, --generate or --side-effects"),
        ({"text": ("a",), "mode": FROZEN}, "leave out --text and --side-effects, or run these wit"),
        (
            {"prompts": Path("p"), "side_effects": SideEffectsConfig(), "mode": FROZEN},
            "hold what a prompt's own run had",
        ),
        (
            {"run": Path("run"), "metric": "kl"},
            "--metric is kl, and with --run it is the run's own: leave out --metric, or --run",
        ),
    ],
)
def test_what_does_not_go_together_is_told(given, message):
    with pytest.raises(ValueError, match=message):
        Rerun(**given)


def test_a_result_is_decided_by_what_files_hold_and_not_by_where_they_are(tmp_path):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("the same")
    one, other = (Rerun(prompts=tmp_path / name).made_from() for name in ("a.jsonl", "b.jsonl"))
    assert one == other
    assert one["prompts"] == content_hash(tmp_path / "a.jsonl")
    assert "mode" not in one
    assert Rerun(prompts=tmp_path / "a.jsonl", mode=FROZEN).made_from()["mode"] == {
        "attention": "frozen",
        "mlps": "model",
    }
    assert Rerun(prompts=tmp_path / "a.jsonl", seed=1).made_from() != one


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--model", ("other", "bundled", "sae")),
        ("--dictionaries", ("bundled", "other", "sae")),
        ("--mlp", ("bundled", "bundled", "transcoder")),
    ],
)
def test_what_a_run_says_is_not_said_besides(option, named):
    value = next(x for x in named if x not in ("bundled", "sae"))
    with pytest.raises(ValueError, match=f"{option} is {value}, and with --run it is the run"):
        open_run(EDIT, Rerun(run=Path("run")), *named, Placement())


def test_without_a_run_prompts_are_opened_where_some_are_asked_for(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"clean": "The keys near it", "answer": " sit", "wrong": " sits"}))
    asked = ("bundled", "bundled", "sae", Placement(device="cpu"))
    opening = open_without_run(EDIT, Rerun(prompts=path), *asked)
    assert (opening.source["model"], opening.source["dtype"]) == ("bundled", "float32")
    opened = opening.open(silent)
    assert (opened.told, opened.name, opened.of_run) == ("prompts.jsonl", "bundled", None)
    assert len(opened.analysis.prompts) == 1
    text = open_without_run(EDIT, Rerun(text=("bundled",)), *asked).open(silent)
    assert (text.analysis, text.told) == (None, "")


def test_an_edit_of_other_dictionaries_is_refused_before_a_model_is_read():
    other = Edit(operations=EDIT.operations, suite="other")
    with pytest.raises(ValueError, match="feature numbers mean nothing in another suite"):
        open_without_run(other, Rerun(text=("bundled",)), "none", "bundled", "sae", Placement())

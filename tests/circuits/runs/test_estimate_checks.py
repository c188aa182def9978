"""`verify --dry-run` and `ablate --dry-run`: what is counted, held against what is run."""

import json
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuits.runs.estimate_checks import estimate_ablation
from hooked_qwen import bundled
from hooked_qwen.placement import Placement
from tests.circuits.conftest import call

AGAIN = re.compile(r"read (\d+) times more")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the bundled model, whose weights are others by now: who loads it is refused."""
    into = tmp_path_factory.mktemp("runs")
    weights = shutil.copytree(bundled.PATH, into / "model") / "model.safetensors"
    rows = [
        {"clean": f"The {noun}s by the bucket", "patch": f"The {noun} by the bucket"}
        for noun in ("judge", "boy")
    ]
    lines = [json.dumps(row | {"answer": " are", "wrong": " is"}) for row in rows]
    (into / "prompts.jsonl").write_text("\n".join(lines))
    done = call(
        *("discover", into / "prompts.jsonl", "--nodes", 10),
        *("--estimator", "patching", "--out", into / "run"),
        *("--model", into / "model", "--dictionaries", "bundled"),
    )
    assert done.exit_code == 0, done.output
    save_file({k: torch.zeros_like(v) for k, v in load_file(weights).items()}, weights)
    return into / "run"


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("verify",), ("exact effects", "controls: faithfulness", "circuits of coordinates")),
        (("verify", "--level", "quick"), ("exact edges", "circuits side by side")),
        (("ablate", "--top", 2), ("prompts under the ablation, and controls", "left: edges")),
    ],
)
def test_the_commands_tell_memory_and_time_and_change_nothing(folder, fails, options, told):
    before = files_in(folder)
    verb, *rest = options
    assert "model" in fails(verb, folder, *rest)
    done = call(verb, folder, *rest, "--dry-run")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for words in (*told, "passes of the model", "2 prompts of 5 tokens:", "at most on cpu"):
        assert words in said
    assert files_in(folder) == before


def test_an_ablation_reads_the_dictionaries_of_its_sites_and_what_is_left_all(folder):
    def read_again(memory, **asked):
        done = estimate_ablation(folder, **asked, placement=Placement(memory=memory))
        (again,) = (int(found[1]) for item in done.times if (found := AGAIN.match(item.note)))
        return again

    # In 3 MB there is room for one of them.
    kept, let_go = (read_again(memory, top=1) for memory in (3e-3, 1e-9))
    assert 0 < kept < let_go < read_again(1e-9, outside=True)


def test_held_out_prompts_are_counted_too(folder):
    done = call("verify", folder, "--held-out", folder.parent / "prompts.jsonl", "--dry-run")
    assert "held-out prompts" in done.output


def test_what_is_refused_is_refused_before_it_is_begun(folder, fails):
    dry = "--dry-run"
    assert "no --graph" in fails("verify", folder, "--graph", folder / "graph.json", dry)
    assert "expected --top 1 to" in fails("ablate", folder, "--top", 1000, dry)
    assert "prompts have positions 0 to 4" in fails(
        "ablate", folder, "--features", "mlp_out.3/8@9", dry
    )


def test_checks_of_a_replacement_graph_are_not_told(folder, fails, tmp_path):
    out, prompts = tmp_path / "run", folder.parent / "prompts.jsonl"
    done = call("discover", prompts, "--method", "replacement", "--nodes", 5, "--out", out)
    assert done.exit_code == 0, done.output
    assert "whose verify is not estimated" in fails("verify", out, "--dry-run")

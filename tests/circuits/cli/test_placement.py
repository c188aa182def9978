"""--device, --dtype, --memory, --seed and --quiet: what they do, and what runs remember."""

import json
import shutil

import pytest

from circuits.runs.finished_run import read_run
from hooked_qwen.notices import Notice
from hooked_qwen.placement import Placement, placement_of
from tests.circuits.conftest import call

PAIR = {"clean": "The judges by the bucket", "patch": "The judge by the bucket"}
ANSWERS = {"answer": " are", "wrong": " is"}
FEW = ("--estimator", "patching", "--nodes", 5)
RUNS_A_MODEL = {
    "demo": (),
    "train": ("saes", "--text", "bundled"),
    "cache": ("--text", "bundled"),
    "evaluate": ("bundled", "--text", "bundled"),
    "feature": ("bundled", "resid_post.2/17", "--text", "bundled"),
    "suite": ("bundled", "--text", "bundled"),
    "discover": ("--clean", "a b"),
    "verify": ("run",),
    "ablate": ("run", "--top", "1"),
}
WITHOUT_OUT = ("evaluate", "verify", "ablate")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run that was found with the model in bfloat16."""
    folder = tmp_path_factory.mktemp("placed")
    (folder / "prompts.jsonl").write_text(json.dumps(PAIR | ANSWERS))
    prompts = ("discover", folder / "prompts.jsonl", *FEW)
    done = call(*prompts, "--dtype", "bfloat16", "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("command", RUNS_A_MODEL)
def test_every_command_that_runs_a_model_refuses_a_device_that_is_not_here(
    command, fails, tmp_path
):
    arguments = (command, *RUNS_A_MODEL[command])
    if command not in WITHOUT_OUT:
        arguments += ("--out", tmp_path / "out")
    assert "there is no device 'cuda:7' here" in fails(*arguments, "--device", "cuda:7")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", RUNS_A_MODEL)
def test_every_command_that_runs_a_model_takes_the_same_options(command):
    told = call(command, "--help").output
    assert all(name in told for name in ("--device", "--dtype", "--memory", "--seed", "--quiet"))


def test_a_run_remembers_where_and_how_it_was_found(made):
    manifest = json.loads((made / "run" / "manifest.json").read_text())
    assert (manifest["device"], manifest["dtype"]) == ("cpu", "bfloat16")
    assert read_run(made / "run").placement == Placement(device="cpu", dtype="bfloat16")


def test_another_precision_is_another_run(made, fails):
    same = ("discover", made / "prompts.jsonl", *FEW, "--out", made / "run")
    assert call(*same, "--dtype", "bfloat16").exit_code == 0
    assert "a run made from something else" in fails(*same)


def test_a_run_is_taken_up_as_it_was_found_unless_told_otherwise(made):
    run = read_run(made / "run")
    assert placement_of(run.open().analysis.model).dtype == "bfloat16"
    with pytest.warns(Notice, match=r"with the model in bfloat16, .* the model in float32"):
        opened = run.open(Placement(dtype="float32", memory=2.0))
    assert placement_of(opened.analysis.model).dtype == "float32"


def test_a_run_of_a_device_that_is_not_here_is_taken_up_on_another(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"device": "cuda:7"}))
    with pytest.warns(Notice, match=r"was found on cuda:7, which is not here"):
        assert placement_of(read_run(folder).open().analysis.model).device == "cpu"


def test_a_run_of_an_earlier_version_was_found_on_the_cpu_in_float32(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["device"], manifest["dtype"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_run(folder).placement == Placement(device="cpu", dtype="float32")


def test_an_ablation_in_another_precision_is_another_ablation(made, fails):
    ablate = ("ablate", made / "run", "--top", 1, "--name", "one")
    assert call(*ablate).exit_code == 0
    assert call(*ablate).exit_code == 0
    assert "made from something else" in fails(*ablate, "--dtype", "float32")


def test_quiet_says_nothing_and_the_next_command_speaks_again(made):
    again = ("discover", made / "prompts.jsonl", *FEW, "--dtype", "bfloat16", "--force")
    quiet = call(*again, "--quiet", "--out", made / "quiet")
    assert quiet.exit_code == 0
    assert quiet.stdout == ""
    assert (made / "quiet" / "graph.json").exists()
    # Also one that has no such option.
    assert "agreement" in call("prompts", "list").stdout
    assert "graph" in call(*again, "--out", made / "loud").stdout


@pytest.mark.parametrize("command", ["train", "cache"])
def test_what_does_not_fit_into_the_memory_is_refused_before_it_is_begun(command, fails, tmp_path):
    arguments = (command, *RUNS_A_MODEL[command], "--layers", 1, "--sites", "mlp_out")
    arguments += ("--tokens", 2048)
    told = fails(*arguments, "--out", tmp_path / "out", "--memory", 0.001)
    assert "GB beside the model, more than the 0.001 GB of --memory" in told
    assert not (tmp_path / "out" / "suite.json").exists()
    needed = float(told.split("about ")[1].split()[0])
    more = ("--memory", 1.1 * needed, "--out", tmp_path / "fits")
    assert call(*arguments, *more).exit_code == 0

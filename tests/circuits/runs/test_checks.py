"""Specificity, stability and sufficiency in folders: what is written, what is refused."""

import json
import shutil

import pytest

from circuits.discovery.config import DiscoverConfig
from circuits.graph import Node
from circuits.runs.ablate_run import ablate_run
from circuits.runs.checks import FIGURES, MATRIX, STABILITY, run_names, specificity_run
from circuits.runs.discover_run import discover_run
from circuits.runs.inputs import Inputs
from circuits.runs.prompt_sets import one_prompt
from circuits.verification.specificity import SpecificityConfig
from tests.circuits.conftest import call

PAIRS = {
    "one": [
        one_prompt(f"The {a}s by the bucket", f"The {a} by the bucket", [" are"], [" is"])
        for a in ("judge", "boy")
    ],
    "two": [one_prompt("The judge near the boys", "The judges near the boys", [" is"], [" are"])],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two small runs on the bundled model."""
    folder = tmp_path_factory.mktemp("made")
    config = DiscoverConfig(estimator="patching", nodes=8)
    for name, given in PAIRS.items():
        inputs = Inputs.resolved("bundled", "bundled", folder / f"{name}.jsonl")
        discover_run(inputs, folder / name, config=config, given=given)
    return [folder / name for name in PAIRS]


def test_the_matrix_of_runs_is_written_with_its_figures(runs, tmp_path, fails):
    out = tmp_path / "out"
    done = call("specificity", *runs, "--out", out, "--to", "zero", "--features", 2, "--draws", 1)
    assert done.exit_code == 0, done.output
    record = json.loads((out / MATRIX).read_text())
    assert record["rows"] == ["one", "two", "random features"]
    assert all((out / name).exists() for name in FIGURES)
    text = ",".join(record["circuits"]["one"])
    result = ablate_run(
        shutil.copytree(runs[1], tmp_path / "two"), features=text, to="zero", label="of-one"
    )
    cell = record["lost"][0][1]
    assert cell["metric"] == pytest.approx(result["after"], abs=1e-5)
    assert all(Node.parse(node).position is None for node in text.split(","))
    assert "made from something else" in fails("specificity", *runs, "--out", out)


def test_a_circuit_is_found_again_and_a_record_of_it_stays(runs, tmp_path, fails):
    run = shutil.copytree(runs[0], tmp_path / "run")
    some = ("--resamples", 4, "--reruns", 1, "--estimators", "relp")
    done = call("stability", run, *some)
    assert done.exit_code == 0, done.output
    record = json.loads((run / STABILITY).read_text())
    assert (record["n_prompts"], record["reruns"]["n"]) == (2, 1)
    assert call("stability", run, *some).exit_code == 0
    assert "made from something else" in fails("stability", run, "--resamples", 3)
    assert "one prompt alone" in fails("stability", runs[1])
    again = ("discover", runs[0].parent / "one.jsonl", "--out", run)
    assert "a check of its stability" in fails(*again)


def test_runs_are_named_by_folder_or_path(tmp_path):
    a, b = tmp_path / "x" / "run", tmp_path / "y" / "run"
    assert run_names([a, tmp_path / "other"]) == ["run", "other"]
    assert run_names([a, b]) == [a.as_posix(), b.as_posix()]
    with pytest.raises(ValueError, match="given twice"):
        run_names([a, a])


def test_runs_of_other_dictionaries_are_refused(runs, tmp_path):
    other = shutil.copytree(runs[1], tmp_path / "other")
    manifest = json.loads((other / "manifest.json").read_text())
    config = manifest["config"] | {"mlp": "transcoder"}
    (other / "manifest.json").write_text(json.dumps(manifest | {"config": config}))
    with pytest.raises(ValueError, match="not of the same mlp: sae and transcoder"):
        specificity_run([runs[0], other], tmp_path / "out", config=SpecificityConfig())

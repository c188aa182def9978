"""`verify_run`: a run held against ablation, its record, and effects in its graph."""

import json
import shutil

import pytest

from circuits.runs.overwrite import MADE_FROM
from circuits.runs.verify_run import verify_run
from circuits.verification.verify import VerifyConfig


@pytest.fixture
def run(small_run, tmp_path):
    return shutil.copytree(small_run[0] / "run", tmp_path / "run")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_verified_run_has_exact_effects_in_its_graph(run):
    nodes = read(run / "graph.json")["nodes"]
    assert {n["exact"] for n in nodes if n["kind"] in ("feature", "error")} == {None}
    record = verify_run(run, config=VerifyConfig(level="quick", seed=2))
    written = read(run / "verification.json")
    assert written.pop(MADE_FROM)["seed"] == 2
    assert written == json.loads(json.dumps(record))
    exact = {n["id"]: n["exact"] for n in read(run / "graph.json")["nodes"]}
    for point in record["nodes"]["points"]:
        assert exact[point["id"]] == pytest.approx(point["exact"], rel=1e-5)
    with pytest.raises(ValueError, match=r"verification\.json is there already"):
        verify_run(run, config=VerifyConfig(level="quick", seed=3))


def test_a_metric_that_is_a_function_is_given_again_and_another_is_refused(run):
    with pytest.raises(ValueError, match="was made with the metric logit-difference, not with kl"):
        verify_run(run, config=VerifyConfig(level="quick"), metric="kl")
    assert not (run / "verification.json").exists()


def test_what_is_no_run_says_how_to_make_one(tmp_path):
    with pytest.raises(ValueError, match="is not a finished run: no manifest.json. Make one with"):
        verify_run(tmp_path, config=VerifyConfig(level="quick"))

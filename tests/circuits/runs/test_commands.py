"""What each verb for circuits does, called from Python: what it takes, writes and gives back."""

import json
import shutil

import pytest

from circuits.graph import load, ordered, save
from circuits.runs.ablate_run import ablate_run
from circuits.runs.compare_runs import compare_runs
from circuits.runs.overwrite import MADE_FROM
from circuits.runs.render_run import render_run
from tests.circuits import synthetic


@pytest.fixture
def run(small_run, tmp_path):
    return shutil.copytree(small_run[0] / "run", tmp_path / "run")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_strongest_features_may_be_named_too(run):
    """By `top` or by name, the same is ablated and the same is found."""
    strongest = [n for n in ordered(load(run / "graph.json")) if n.kind == "feature"][:2]
    top = ablate_run(run, top=2, to="mean", label="top")
    named = ablate_run(run, features=",".join(map(str, strongest)), to="mean", label="named")
    assert named == top
    assert top["features"] == [str(node) for node in strongest]
    files = [run / "ablations" / label / "graph.json" for label in ("top", "named")]
    assert files[0].read_bytes() == files[1].read_bytes()
    for label in ("top", "named"):
        written = read(run / "ablations" / label / "result.json")
        assert written.pop(MADE_FROM)["seed"] == 5, "the run's own"
        assert written == json.loads(json.dumps(top))
        assert label in (run / "graph.html").read_text(encoding="utf-8")


def test_what_cannot_be_drawn_writes_nothing(run):
    before = sorted(run.rglob("*"))
    with pytest.raises(ValueError, match="docx"):
        render_run(run, ["svg", "docx"], nodes=5)
    assert sorted(run.rglob("*")) == before
    written = render_run(run, ["svg", "graphml"], nodes=5)
    assert {path.name for path in written} == {"graph.svg", "graph.graphml"}
    assert set(written) == set(run.rglob("*")) - set(before)


@pytest.fixture(scope="module")
def graph():
    return synthetic.circuit(30)


def test_a_comparison_is_refused_before_anything_is_written(tmp_path, graph):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        save(synthetic.circuit(30), tmp_path / folder / "graph.json")
    page = tmp_path / "page.html"
    rows = compare_runs(tmp_path / "a", tmp_path / "b", page)
    assert {(row.status, row.change) for row in rows} == {("same", 0.0)}
    first = page.read_bytes()
    compare_runs(tmp_path / "a", tmp_path / "b", page)
    assert page.read_bytes() == first
    with pytest.raises(ValueError, match=r"page\.html is there already, a page of something else"):
        compare_runs(tmp_path / "b", tmp_path / "a", page)
    assert page.read_bytes() == first

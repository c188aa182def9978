"""A format is a function and a row: `circuits render RUN --to toy` writes it."""

import json

import pytest

from circuits.render.exporters import EXPORTERS, Drawn, exporters
from circuits.runs.overwrite import RUN_FILES, VIEWERS
from tests.circuits.conftest import call


def export_toy(drawn: Drawn, suffix: str):
    path = drawn.folder / f"graph.{suffix}"
    strongest = sorted(map(str, drawn.graph))[: drawn.nodes]
    path.write_text(json.dumps({"nodes": strongest, "verified": drawn.verification is not None}))
    return [path]


@pytest.fixture
def _registered(monkeypatch):
    monkeypatch.setitem(EXPORTERS, "toy", f"{__name__}:export_toy")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "run"
    prompt = ("--clean", "The judges by the bucket", "--patch", "The judge by the bucket")
    done = call("discover", *prompt, "--estimator", "patching", "--nodes", 5, "--out", out)
    assert done.exit_code == 0, done.output
    return out


@pytest.mark.usefixtures("_registered")
def test_a_registered_format_is_written_beside_the_others(run):
    (run / "graph.html").unlink()
    done = call("render", run, "--to", "toy, html,gexf", "--nodes", 3)
    assert done.exit_code == 0, done.output
    paths = [run / f"graph.{suffix}" for suffix in ("toy", "html", "gexf")]
    assert done.output.replace("\n", "") == "".join(map(str, paths))
    assert all(path.stat().st_size for path in paths)
    said = json.loads(paths[0].read_text())
    ids = {node["id"] for node in json.loads((run / "graph.json").read_text())["nodes"]}
    assert len(said["nodes"]) == 3
    assert set(said["nodes"]) <= ids
    assert said["verified"] is False


def test_an_unknown_format_lists_all_and_writes_nothing(run, fails):
    before = sorted(run.iterdir())
    assert "cannot render to gif: expected some of html, svg, pdf" in fails(
        "render", run, "--to", "gif,svg"
    )
    assert sorted(run.iterdir()) == before


@pytest.mark.parametrize("name", EXPORTERS)
def test_every_row_names_a_function(name):
    ((found, export),) = exporters([name])
    assert found == name
    assert callable(export)


def test_all_that_is_written_belongs_to_the_run(run):
    """And so goes with it when another run takes its place."""
    before = set(run.iterdir())
    done = call("render", run, "--to", ",".join(EXPORTERS))
    assert done.exit_code == 0, done.output
    written = {path.name for path in set(run.iterdir()) - before}
    assert len(written) >= 10
    assert written <= {*RUN_FILES, *VIEWERS}
    features = list((run / "circuit-tracer" / "features").iterdir())
    assert features
    assert json.loads(features[0].read_text(encoding="utf-8"))["examples_quantiles"]

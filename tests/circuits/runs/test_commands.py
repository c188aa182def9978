"""What each verb for circuits does, called from Python: what it takes, writes and gives back."""

import json
import shutil

import pytest

from circuits.discovery.config import DiscoverConfig
from circuits.features.names import name_of_card
from circuits.graph import as_json, load, ordered, save
from circuits.prompt_files import prompt_lines
from circuits.runs.ablate_run import ablate_run
from circuits.runs.compare_runs import compare_runs
from circuits.runs.discover_run import discover_run
from circuits.runs.inputs import Inputs
from circuits.runs.overwrite import MADE_FROM
from circuits.runs.prompt_sets import one_prompt
from circuits.runs.render_run import render_run
from circuits.runs.verify_run import verify_run
from circuits.verification.verify import VerifyConfig
from tests.circuits import synthetic

PAIR = one_prompt("The judges by the bucket", "The judge by the bucket", [" are"], [" is"])
CONFIG = DiscoverConfig(estimator="patching", nodes=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small run on the bundled model, of prompts that were no file; what was told of it."""
    folder, told = tmp_path_factory.mktemp("made"), []
    inputs = Inputs.resolved("bundled", "bundled", folder / "prompts.jsonl")
    found = discover_run(
        inputs,
        folder / "run",
        config=CONFIG,
        given=[PAIR],
        seed=5,
        command=["circuits", "discover"],
        report=lambda what, *_, **__: told.append(what),
    )
    return folder, found, told


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made[0] / "run", tmp_path / "run")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_a_run_is_written_as_it_was_found_and_keeps_the_prompts_it_was_given(made):
    folder, found, told = made
    assert (folder / "prompts.jsonl").read_text() == prompt_lines([PAIR])
    assert as_json(load(folder / "run" / "graph.json")) == as_json(found.graph)
    manifest = read(folder / "run" / "manifest.json")
    assert (manifest["seed"], manifest["command"]) == (5, ["circuits", "discover"])
    assert {"node effects", "edges", "examples"} <= set(told)


def test_every_feature_is_called_what_its_card_says(made):
    folder, found, _ = made
    cards = read(folder / "run" / "cards.json")
    features = [n for n in found.graph if n.kind == "feature"]
    assert features
    for node in features:
        assert found.graph.nodes[node]["label"] == name_of_card(
            cards[f"{node.site}/{node.feature}"]
        )


def test_prompts_given_replace_no_file_of_others(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("mine")
    inputs = Inputs.resolved("bundled", "bundled", path)
    with pytest.raises(ValueError, match=r"prompts\.jsonl is there already"):
        discover_run(inputs, tmp_path / "run", config=CONFIG, given=[PAIR])
    assert path.read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["prompts.jsonl"]


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

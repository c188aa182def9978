"""A rerun of a run: its prompts and its graph under an edit, the folder, what is refused."""

import json

import pytest

from circuits.discovery.config import DiscoverConfig
from circuits.edits.edited import graph_left
from circuits.graph import as_json, load
from circuits.render.words import readable
from circuits.runs.compare_runs import compare_runs
from circuits.runs.discover_run import discover_run
from circuits.runs.finished_run import read_run
from circuits.runs.inputs import Inputs
from circuits.runs.prompt_sets import one_prompt
from circuits.runs.rerun import Rerun, rerun_edit
from hooked_qwen.nodes import Node
from saes.edit_file import Edit, Operation

PAIRS = [
    one_prompt("The judges by the bucket", "The judge by the bucket", [" are"], [" is"]),
    one_prompt("The kings near the jacket", "The king near the jacket", [" are"], [" is"]),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A small run on the bundled model."""
    folder = tmp_path_factory.mktemp("made")
    inputs = Inputs.resolved("bundled", "bundled", folder / "prompts.jsonl")
    config = DiscoverConfig(estimator="patching", nodes=8)
    discover_run(inputs, folder / "run", config=config, given=PAIRS)
    return folder / "run"


@pytest.fixture(scope="module")
def edit(run):
    """The strongest feature cut, the next scaled."""
    graph = load(run / "graph.json")
    cut, scaled = [n for n in graph if n.kind == "feature"][:2]
    operations = (
        Operation(node=cut._replace(position=None), do="zero"),
        Operation(node=scaled, do="scale", value=0.5),
    )
    Edit(operations=operations).save(run.parent / "edit.json")
    return run.parent / "edit.json"


@pytest.fixture(scope="module")
def out(run, edit):
    rerun_edit(edit, Rerun(run=run), run.parent / "rerun")
    return run.parent / "rerun"


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_graph_under_the_edit_is_found_by_the_run_s_own_rules(run, edit, out):
    opened = read_run(run).open()
    left = graph_left(opened.analysis, Edit.load(edit), load(run / "graph.json"))
    assert as_json(load(out / "graph.json")) == json.loads(json.dumps(as_json(left)))
    assert left.graph["positions"] == "keep"
    record = read(out / "result.json")
    assert record["prompts"]["n"] == len(PAIRS)
    assert record["prompts"]["after"]["value"] == pytest.approx(
        left.graph["clean_metric"], abs=1e-4
    )
    assert record["prompts"]["before"]["value"] == pytest.approx(
        load(run / "graph.json").graph["clean_metric"], abs=1e-4
    )


def test_a_run_and_its_rerun_are_compared_as_folders_and_as_files(run, out, tmp_path):
    rows = compare_runs(run, out, tmp_path / "a.html")
    files = compare_runs(run / "graph.json", out / "graph.json", tmp_path / "b.html")
    assert rows == files
    found = {status: sum(row.status == status for row in rows) for status in ("ablated", "only-b")}
    statuses = read(out / "result.json")["graph"]["statuses"]
    assert {status: statuses[status] for status in found} == found
    assert found["ablated"] == 1
    (pinned,) = [row.node for row in rows if row.status == "ablated"]
    assert pinned.feature == read(out / "result.json")["graph"]["most"][0]["node"] or pinned


def test_the_page_has_the_graph_and_what_its_features_are_known_by(run, out):
    page = (out / "result.html").read_text(encoding="utf-8")
    assert 'id="network"' in page
    assert "pinned by the edit" in page
    first = read(out / "result.json")["operations"][0]["node"]
    labels = [
        d["label"]
        for n, d in load(run / "graph.json").nodes(data=True)
        if str(n)[: len(first)] == first
    ]
    assert json.dumps(readable(labels[0]))[1:-1].split("\\u")[0] in page


def test_other_prompts_are_rerun_in_place_of_the_run_s_and_its_graph_stays(
    run, edit, out, tmp_path
):
    other = tmp_path / "other.jsonl"
    other.write_text(
        '{"clean": "The women near the table", "patch": "The woman near the table", '
        '"answer": " are", "wrong": " is"}\n'
    )
    record = rerun_edit(edit, Rerun(run=run, prompts=other))
    assert [row["clean"] for row in record["prompts"]["prompts"]] == ["The women near the table"]
    assert record["graph"] == read(out / "result.json")["graph"]


def test_a_rerun_is_replaced_by_the_same_and_nothing_else_is_lost(run, edit, tmp_path):
    text = Rerun(run=run)
    with pytest.raises(ValueError, match="no rerun: choose another --out"):
        rerun_edit(edit, text, run)
    into = tmp_path / "rerun"
    rerun_edit(edit, text, into)
    first = (into / "result.html").read_bytes()
    rerun_edit(edit, text, into)
    assert (into / "result.html").read_bytes() == first
    other = Rerun(generate=("The judges",))
    with pytest.raises(ValueError, match="made from something else"):
        rerun_edit(edit, other, into)
    rerun_edit(edit, other, into, force=True)
    assert sorted(path.name for path in into.iterdir()) == ["result.html", "result.json"]


def test_what_a_run_says_is_not_asked_for_besides(run, edit, fails):
    for option, value in (("--model", "other"), ("--dictionaries", "d"), ("--metric", "kl")):
        line = fails("edit", "apply", edit, "--run", run, option, value)
        assert f"{option} is {value}, and with --run it is the run's own" in line
    Edit(operations=(Operation(node=Node("mlp_out.0", 1), do="zero"),), suite="other").save(
        run.parent / "of_others.json"
    )
    line = fails("edit", "apply", run.parent / "of_others.json", "--run", run)
    assert "feature numbers mean nothing in another suite" in line
    assert "is not a finished run" in fails("edit", "apply", edit, "--run", run.parent / "none")

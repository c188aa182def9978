"""What each verb for circuits does, called from Python: what it takes, writes and gives back."""

import json
import shutil

import pytest

from circuits.discovery.config import DiscoverConfig
from circuits.edits.ablation import Ablation
from circuits.features.names import name_of_card
from circuits.graph import Node, as_json, load, ordered, save
from circuits.prompt_files import prompt_lines, read_prompts
from circuits.runs.ablate_run import ablate_run, ablation_name, ablation_of
from circuits.runs.compare_runs import compare_runs, names_of
from circuits.runs.discover_run import discover_run
from circuits.runs.inputs import Inputs
from circuits.runs.overwrite import MADE_FROM
from circuits.runs.prompt_sets import make_prompts, one_prompt, positions_for, reference_for
from circuits.runs.render_run import render_run
from circuits.runs.verify_run import verify_run
from circuits.tasks import make_for
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


def test_a_prompt_set_is_that_of_its_task(tmp_path):
    out = tmp_path / "prompts.jsonl"
    options = {"split": "test", "seed": 4}
    made = make_prompts("agreement_nounpp", 6, model="bundled", out=out, **options)
    assert made == make_for("bundled", "agreement_nounpp", 6, **options)
    assert [p.clean for p in read_prompts(out)] == [p.clean for p in made]
    before = out.read_bytes()
    with pytest.raises(ValueError, match=r"prompts\.jsonl is there already"):
        make_prompts("agreement_nounpp", 7, model="bundled", out=out, **options)
    assert out.read_bytes() == before
    make_prompts("agreement_nounpp", 7, model="bundled", out=out, force=True, **options)
    assert len(read_prompts(out)) == 7
    with pytest.raises(ValueError, match="no_such_task"):
        make_prompts("no_such_task", 7, model="bundled", out=tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_nodes_go_to_the_patch_where_there_is_one():
    bare = one_prompt("The judges", None, [" are"], [])
    assert reference_for([PAIR, bare]) == "patch"
    assert reference_for([bare]) == "zero"
    assert (bare.answer, bare.wrong) == ((" are",), ())


def test_positions_are_kept_where_all_prompts_have_one_length():
    short = one_prompt("The judges", "The judge", [" are"], [" is"])
    unequal = one_prompt("The judges by the bucket", "The judge", [" are"], [" is"])
    for prompts, expected in (([PAIR, PAIR], "keep"), ([PAIR, short], "end"), ([short], "keep")):
        assert positions_for(prompts, "bundled", "auto", "refuse") == expected
    assert positions_for([PAIR, unequal], "bundled", "auto", "skip") == "keep"
    with pytest.raises(ValueError, match="clean has"):
        positions_for([PAIR, unequal], "bundled", "auto", "refuse")


@pytest.fixture(scope="module")
def graph():
    return synthetic.circuit(30)


def test_what_is_ablated_is_what_is_named(graph):
    named = (Node("mlp_out.0", 3),)
    for top, outside in ((None, False), (3, False), (None, True)):
        found = ablation_of(graph, named, top, outside=outside, to="patch")
        assert found == Ablation(ablated=named, to="patch")


def test_the_top_features_are_the_strongest_of_the_graph(graph):
    features = [n for n in graph if n.kind == "feature"]
    by_size = sorted(features, key=lambda n: -abs(graph.nodes[n]["effect"]))
    for top in (1, 4, len(features)):
        found = ablation_of(graph, (), top, outside=False, to="zero")
        assert found.ablated == tuple(by_size[:top])
    for top in (0, -1, len(features) + 1, None):
        with pytest.raises(ValueError, match=f"expected --top 1 to {len(features)}"):
            ablation_of(graph, (), top, outside=False, to="zero")


def test_outside_the_graph_everything_is_ablated_but_its_nodes(graph):
    found = ablation_of(graph, (), None, outside=True, to="mean")
    assert found.ablated == ()
    assert set(found.kept) == {n for n in graph if n.kind != "logit"}


@pytest.mark.parametrize("given", ["a", "top-10", "Schlüssel, top 1", "mlp_out.3@5", "x" * 100])
def test_a_name_that_is_one_folder_is_taken(given):
    assert ablation_name(given) == given


@pytest.mark.parametrize(
    "given", ["", ".", "..", ".hidden", "a/b", "a\\b", "a ", " a", "a.", "x" * 101, "a\nb", "a:b"]
)
def test_a_name_that_is_no_folder_everywhere_is_refused(given):
    with pytest.raises(ValueError, match="is no name for an ablation"):
        ablation_name(given)


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    assert names_of(one, tmp_path / "one" / "other") == ("run", "other")
    assert names_of(one, two) == ("one/run", "two/run")
    assert names_of(one / "ablations" / "x", two / "ablations" / "x") == (
        "one/run/ablations/x",
        "two/run/ablations/x",
    )
    assert names_of(one, one) == ("A", "B")


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

"""Run folders: nothing a user made is lost without --force, and nothing stale stays."""

import json
import shutil

import pytest

from circuits.graph import load
from circuits.runs.finished_run import read_run
from hooked_qwen.bundled import language
from tests.circuits.conftest import call

PAIR = {"clean": "The judges by the bucket", "patch": "The judge by the bucket"}
ANSWERS = {"answer": " are", "wrong": " is"}
FEW = ("--estimator", "patching", "--nodes", 5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small run on the bundled model, and its prompts."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "prompts.jsonl").write_text(json.dumps(PAIR | ANSWERS))
    done = call("discover", folder / "prompts.jsonl", *FEW, "--out", folder / "run")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run that may be changed, verified by hand and with figures."""
    folder = tmp_path / "run"
    shutil.copytree(made / "run", folder)
    return folder


def add_results(run):
    """What `verify`, `ablate` and `render` add to a run, for tests that only look at the files."""
    (run / "verification.json").write_text('{"schema": "verification/1"}')
    (run / "ablations" / "mine").mkdir(parents=True)
    (run / "ablations" / "mine" / "result.json").write_text("{}")
    for name in ("graph.svg", "graph.pdf", "verification.svg", "verification.pdf"):
        (run / name).write_text("of the old graph")
    (run / "notes.txt").write_text("mine")


def test_a_run_that_was_checked_stays_until_forced(made, run, fails):
    add_results(run)
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    discover = ("discover", made / "prompts.jsonl", "--out", run, *FEW)
    message = fails(*discover)
    assert "a verification and 1 ablation (mine)" in message
    assert "--force" in message
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before
    done = call(*discover, "--force")
    assert done.exit_code == 0, done.output
    assert not (run / "ablations").exists()
    left = {p.name for p in run.iterdir()}
    assert left == {
        "graph.json", "graph.html", "ranking.json", "cards.json", "manifest.json", "notes.txt",
    }  # fmt: skip


def test_the_same_command_goes_on_and_another_does_not(made, run, fails):
    same = ("discover", made / "prompts.jsonl", *FEW, "--out", run)
    graph = (run / "graph.json").read_bytes()
    assert call(*same).exit_code == 0
    assert (run / "graph.json").read_bytes() == graph
    for extra in (("--metric", "log-probability"), ("--seed", 1), ("--text", made)):
        assert "a run made from something else" in fails(*same, *extra)
    assert (run / "graph.json").read_bytes() == graph


def test_a_prompt_of_the_command_line_replaces_no_file(tmp_path, fails):
    mine = tmp_path / "prompts.jsonl"
    mine.write_text("mine")
    assert "prompts.jsonl is there already" in fails(
        "discover", "--clean", PAIR["clean"], *FEW, "--out", tmp_path
    )
    assert mine.read_text() == "mine"
    new = tmp_path / "new"
    assert "there are no dictionaries at" in fails(
        "discover", "--clean", PAIR["clean"], "--dictionaries", tmp_path / "none", "--out", new
    )
    assert not new.exists()


def test_a_prompt_set_is_replaced_by_the_same_one_only(tmp_path, fails):
    out = tmp_path / "prompts.jsonl"
    make = ("prompts", "make", "agreement_simple", "--n", 4, "--out", out)
    assert call(*make).exit_code == 0
    first = out.read_bytes()
    assert call(*make).exit_code == 0
    assert "is there already" in fails(*make, "--seed", 1)
    assert out.read_bytes() == first
    assert call(*make, "--seed", 1, "--force").exit_code == 0
    assert out.read_bytes() != first


def test_ablations_and_verifications_with_other_settings_stay(made, run, fails):
    ablate = ("ablate", run, "--name", "mine")
    assert call(*ablate, "--top", 1).exit_code == 0
    result = run / "ablations" / "mine" / "result.json"
    first = result.read_bytes()
    assert call(*ablate, "--top", 1).exit_code == 0
    assert result.read_bytes() == first
    for other in (("--top", 2), ("--top", 1, "--to", "mean"), ("--top", 1, "--seed", 3)):
        assert "--force" in fails(*ablate, *other)
    assert result.read_bytes() == first
    assert call(*ablate, "--top", 2, "--force").exit_code == 0
    assert len(json.loads(result.read_text())["features"]) == 2
    (run / "verification.json").write_text('{"made_from": {"seed": 7}}')
    assert "verification.json is there already" in fails("verify", run)


def test_a_new_verification_takes_the_old_figures_away(run):
    for name in ("verification.svg", "verification.pdf", "graph.svg"):
        (run / name).write_text("old")
    assert call("verify", run, "--level", "quick").exit_code == 0
    assert not list(run.glob("verification.[sp]*"))
    assert (run / "graph.svg").exists()
    assert call("verify", run, "--level", "quick").exit_code == 0


def test_a_full_verification_takes_the_place_of_a_quick_one(run, fails):
    for level in ("quick", "full"):
        assert call("verify", run, "--level", level).exit_code == 0
    assert "is there already" in fails("verify", run, "--level", "quick")
    assert "is there already" in fails("verify", run, "--to", "zero")


def test_a_page_of_other_runs_stays(made, run, tmp_path, fails):
    page = tmp_path / "compare.html"
    compare = ("compare", made / "run", run, "--out", page)
    done = call(*compare, "--rows", 1)
    said = " ".join(done.output.split())
    assert "0 only in" in said
    assert "the same in both" in said
    assert "the 1 node that changed most" in said
    assert call(*compare).exit_code == 0
    first = page.read_bytes()
    assert "is there already" in fails("compare", run, made / "run", "--out", page)
    assert page.read_bytes() == first
    assert call("compare", run, made / "run", "--out", page, "--force").exit_code == 0
    notes = tmp_path / "notes.html"
    notes.write_text("mine")
    assert "is there already" in fails("compare", made / "run", run, "--out", notes)


def test_an_evaluation_and_a_card_of_something_else_stay(tmp_path, fails):
    out = tmp_path / "quality.json"
    out.write_text("{}")
    evaluate = ("evaluate", "bundled", "--text", "bundled", "--tokens", 256)
    assert "is there already" in fails(*evaluate, "--out", out)
    assert "name it .json" in fails(*evaluate, "--out", tmp_path / "quality.svg")
    (tmp_path / "new.svg").write_text("mine")
    assert "new.svg is there already" in fails(*evaluate, "--out", tmp_path / "new.json")
    (tmp_path / "resid_post.2-17.json").write_text('{"made_from": {"model_hash": "another"}}')
    card = ("feature", "bundled", "resid_post.2/17", "--text", "bundled", "--out", tmp_path)
    assert "is there already" in fails(*card)
    (tmp_path / "suite.html").write_text("mine")
    assert "is there already" in fails("suite", "bundled", "--text", "bundled", "--out", tmp_path)


def test_the_seed_of_a_run_is_that_of_its_checks(made, tmp_path):
    out = tmp_path / "run"
    done = call("discover", made / "prompts.jsonl", *FEW, "--seed", 5, "--out", out)
    assert done.exit_code == 0, done.output
    assert read_run(out).seed == 5
    for seed, expected in ((None, 5), (6, 6)):
        extra = () if seed is None else ("--seed", seed)
        assert call("ablate", out, "--top", 1, "--name", f"s{seed}", *extra).exit_code == 0
        record = json.loads((out / "ablations" / f"s{seed}" / "result.json").read_text())
        assert record["made_from"]["seed"] == expected
    assert call("verify", out, "--level", "quick").exit_code == 0
    assert json.loads((out / "verification.json").read_text())["made_from"]["seed"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--features", "resid_post.0/-1"), "no node is called 'resid_post.0/-1'"),
        (("--features", "resid_post.0/3@-1"), "no node is called 'resid_post.0/3@-1'"),
        (("--features", "resid_post.0/1_0"), "no node is called 'resid_post.0/1_0'"),
        (("--features", "resid_post.0/3,resid_post.0/3"), "resid_post.0/3 is named twice"),
        (("--features", "resid_post.0/3,resid_post.00/3"), "no dictionary for resid_post.00/3"),
        (("--features", "resid_post.0/3@1,resid_post.0/3"), "at every position"),
        (("--top", "0"), "expected --top 1 to"),
        (("--top", "1", "--name", "../../x"), "is no name for an ablation"),
    ],
)
def test_what_cannot_be_ablated_is_one_line_and_leaves_nothing(run, options, message, fails):
    before = sorted(run.parent.rglob("*"))
    assert message in fails("ablate", run, *options)
    assert sorted(run.parent.rglob("*")) == before


def test_the_name_of_an_ablation_is_the_one_asked_for(run):
    assert call("ablate", run, "--top", 1, "--name", "Schlüssel, top 1").exit_code == 0
    assert (run / "ablations" / "Schlüssel, top 1" / "result.json").exists()
    page = (run / "graph.html").read_text(encoding="utf-8")
    assert json.dumps({"Schlüssel, top 1": {}})[1:-4] in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "a", "b", "--rows", "0"), "--rows is 0: expected 1 or more"),
        (("render", "a", "--nodes", "-1"), "--nodes is -1"),
        (("prompts", "make", "ioi", "--n", "-5", "--out", "x"), "--n is -5"),
        (("evaluate", "bundled", "--text", "bundled", "--tokens", "0"), "--tokens is 0"),
        (("feature", "bundled", "mlp_out.1/2", "--text", "bundled", "--tokens", "-1"), "--tokens"),
        (("feature", "bundled", "mlp_out.1/-2", "--text", "bundled"), "no feature is called"),
        (("suite", "bundled", "--text", "bundled", "--tokens", "0"), "--tokens is 0"),
        (("train", "saes", "--text", "bundled", "--out", "x", "--tokens", "0"), "--tokens is 0"),
        (("train", "saes", "--text", "bundled", "--out", "x", "--width", "-8"), "--width is -8"),
        (("train", "saes", "--text", "bundled", "--out", "x", "--k", "-1"), "--k is -1"),
        (("train", "saes", "--text", "bundled", "--out", "x", "--layers", "-1"), "layers '-1'"),
        (("cache", "--text", "bundled", "--out", "x", "--tokens", "-1"), "--tokens is -1"),
        (("discover", "--clean", "x", "--out", "x", "--nodes", "0"), "nodes is 0"),
        (("discover", "--clean", "x", "--out", "x", "--threads", "0"), "0 threads"),
        (("discover", "--clean", "x", "--out", "x", "--edge-threshold", "-1"), "edge_threshold"),
        (("discover", "--clean", "x", "--out", "x", "--nodes", "few"), "a number, or 'all'"),
    ],
)
def test_a_number_out_of_range_is_one_line(arguments, message, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    assert message in fails(*arguments)
    assert not list(tmp_path.iterdir())


def test_prompts_of_several_lengths_are_lined_up_and_it_is_said(tmp_path, fails):
    prompts = tmp_path / "prompts.jsonl"
    short = {"clean": "The judges", "patch": "The judge"}
    unequal = {"clean": "The judges by the bucket", "patch": "The judge"}
    lines = [json.dumps(side | ANSWERS) for side in (PAIR, short, unequal)]
    prompts.write_text("\n".join(lines))
    discover = ("discover", prompts, *FEW, "--out", tmp_path / "run")
    assert "line 3: clean has" in fails(*discover)
    done = call(*discover, "--skip-unfit")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "left out 1 prompt: 1 clean and patch are not of one length" in said
    assert "lined up at the last token (--positions end)" in said
    assert "2 prompts, mean logit-difference" in said
    graph = json.loads((tmp_path / "run" / "graph.json").read_text())
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert graph["meta"]["positions"] == "end"
    assert graph["meta"]["metric"] == "logit-difference"
    shortest, longest = graph["meta"]["prompt_lengths"]
    assert shortest < longest
    assert manifest["prompts_left_out"] == {"clean and patch are not of one length": 1}
    prompts.write_text("\n".join(lines[:2]))
    assert "Use --positions end" in fails(*discover, "--positions", "keep", "--force")
    prompts.write_text(lines[0])
    assert call(*discover, "--force").exit_code == 0
    assert read_run(tmp_path / "run").config.positions == "keep"


def test_every_task_is_listed_with_an_example():
    done = call("prompts", "list")
    assert done.exit_code == 0, done.output
    for task in language.TASKS:
        assert task in done.output
    assert done.output.count("clean '") == len(language.TASKS)


def test_a_run_says_which_tokens_it_explains(tmp_path):
    out = tmp_path / "run"
    done = call("discover", "--clean", PAIR["clean"], *FEW, "--out", out)
    assert done.exit_code == 0, done.output
    graph = json.loads((out / "graph.json").read_text())
    answers = graph["meta"]["answers"]
    assert answers["of"] == "model"
    assert 0 < len(answers["tokens"]) <= 10
    assert answers["by_prompt"] == [answers["tokens"]]
    total = sum(share for _, share in answers["tokens"])
    assert total == pytest.approx(1)
    (output,) = (n for n in graph["nodes"] if n["kind"] == "logit")
    assert answers["tokens"][0][0].strip() in output["label"]
    said = " ".join(done.output.split())
    assert f"answers the model's own: “{answers['tokens'][0][0]}”" in said
    page = (out / "graph.html").read_text(encoding="utf-8")
    assert "the model&#39;s own: “" in page


def test_graphs_of_earlier_versions_are_read(tmp_path):
    old = tmp_path / "graph.json"
    record = {"schema": "feature-graph/1", "meta": {"metric": "logit difference"}}
    old.write_text(json.dumps(record | {"nodes": [], "edges": []}))
    assert load(old).graph["metric"] == "logit-difference"

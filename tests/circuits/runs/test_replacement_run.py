"""A replacement graph on the bundled model as a user makes it: run folder, page, other verbs."""

import json

import pytest

from circuits.graph import load
from circuits.runs.finished_run import read_run
from tests.circuits.conftest import call

PROMPT = ("--clean", "The surgeons near the jackets")
PAIR = (*PROMPT, "--patch", "The surgeon near the jackets", "--answer", " sit", "--wrong", " sits")


def discover(out, *options):
    """Cards come from a few words: no test here looks at them."""
    text = out.parent / "few.txt"
    text.write_text("The surgeons sit. " * 40, encoding="utf-8")
    of_text = ("--method", "replacement", "--text", text)
    done = call("discover", *options, *of_text, "--out", out)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "run"
    return folder, discover(folder, *PAIR)


def test_the_run_says_where_its_heads_look_and_the_page_holds_it(made):
    folder, _ = made
    record = json.loads((folder / "heads.json").read_text(encoding="utf-8"))
    shares = read_run(folder).graph.graph["heads"]["influence"]
    assert [card["head"] for card in record["heads"]] == list(shares)[:8]
    # Head 3.0 looks from the last noun at the subject, whose feature of plurals it reads there.
    (card,) = [card for card in record["heads"] if card["head"] == "3.0"]
    query = card["queries"][0]
    assert (query["query"], query["scored"]) == (4, 1)
    assert {term[1] for term in query["terms"][:3]} == {"mlp_out.0/375@1"}
    assert 'id="data-attention"' in (folder / "graph.html").read_text(encoding="utf-8")


def test_the_run_is_whole_and_says_what_it_is(made):
    folder, told = made
    run = read_run(folder)
    assert (run.config.method, run.inputs.mlp) == ("replacement", "transcoder")
    meta = run.graph.graph
    assert meta["edge_units"] == "pre-activation of the target"
    assert 0 < meta["replacement_score"] < 1
    assert "(replacement score)" in " ".join(told.split())
    assert set(meta["dictionaries"]) == {f"mlp_out.{layer}" for layer in range(5)}
    assert run.open().analysis.config == run.config


def test_the_page_has_influence_and_pre_activations(made):
    html = (made[0] / "graph.html").read_text(encoding="utf-8")
    for said in ('"key": "influence"', '"pre_activation":', "replacement model, exact edges"):
        assert said in html or said.replace(": ", ":") in html
    assert "raises or lowers its target" in html


def test_all_nodes_sum_to_pre_activations_in_the_file(tmp_path):
    """In float32, on the bundled model."""
    discover(tmp_path / "run", *PROMPT, "--nodes", "all")
    graph = load(tmp_path / "run" / "graph.json")
    targets = [n for n, data in graph.nodes(data=True) if "pre_activation" in data]
    for node in targets:
        data = graph.nodes[node]
        total = data["bias"] + sum(w for _, _, w in graph.in_edges(node, data="weight"))
        size = sum(abs(w) for _, _, w in graph.in_edges(node, data="weight"))
        assert data["pre_activation"] == pytest.approx(total, abs=1e-5 * size)
        if node.kind == "feature":
            assert data["activation"] == pytest.approx(data["pre_activation"], rel=1e-4)
    outputs = [n for n in targets if n.kind == "logit"]
    assert len(outputs) == 10
    assert all(0 < graph.nodes[n]["probability"] < 1 for n in outputs)


def test_the_same_command_writes_the_same_bytes(made, tmp_path):
    discover(tmp_path / "run", *PAIR)
    ours, again = (f / "graph.json" for f in (made[0], tmp_path / "run"))
    assert ours.read_bytes() == again.read_bytes()


def test_it_is_held_against_interventions(tmp_path):
    """The record, exact effects in the graph, and the page, the report and the terminal of it."""
    discover(tmp_path / "run", *PAIR, "--nodes", "10")
    done = call("verify", tmp_path / "run", "--level", "quick")
    assert done.exit_code == 0, done.output
    assert "predicted against" in done.output
    assert "dealt anew among those of each dictionary" in " ".join(done.output.split())
    record = json.loads((tmp_path / "run" / "verification.json").read_text())
    linear = next(m for m in record["node_modes"] if m["mlps"] == "linear")
    assert (linear["attention"], linear["slope"]) == ("frozen", pytest.approx(1, abs=1e-4))
    graph = load(tmp_path / "run" / "graph.json")
    assert all(data["exact"] is not None for _, data in graph.nodes(data=True))
    html = (tmp_path / "run" / "graph.html").read_text(encoding="utf-8")
    assert "How much freezing matters" in html
    done = call("report", tmp_path / "run", "--out", tmp_path / "report.html")
    assert done.exit_code == 0, done.output
    assert "by how much of the model is held" in (tmp_path / "report.html").read_text()


def test_two_of_them_are_cut_on_each_others_task(made, tmp_path):
    discover(tmp_path / "run", *PROMPT, "--answer", " sit", "--nodes", "10")
    runs = (made[0], tmp_path / "run")
    done = call("specificity", *runs, "--features", "2", "--draws", "1", "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "specificity.json").read_text())
    assert all(cell["value"] is not None for row in record["lost"] for cell in row)


def test_an_edit_is_rerun_with_attention_frozen(made, tmp_path, fails):
    cut, out = tmp_path / "cut.json", tmp_path / "out"
    done = call("edit", "make", made[0], "--top", "2", "--out", cut)
    assert done.exit_code == 0, done.output
    rerun = ("edit", "apply", cut, "--run", made[0])
    done = call(*rerun, "--attention", "frozen", "--mlps", "linear", "--out", out)
    assert done.exit_code == 0, done.output
    assert "attention frozen, MLPs linear" in done.output
    found = json.loads((out / "result.json").read_text())
    prompts = found["prompts"]
    assert prompts["change"]["value"] == pytest.approx(prompts["predicted"]["value"], rel=1e-5)
    assert "graph" not in found
    assert "they are for prompts" in fails(*rerun, "--attention", "frozen", "--text", "bundled")


def test_a_prompt_is_written_on_from_with_attention_and_transcoders_held(made, tmp_path):
    cut, out = tmp_path / "cut.json", tmp_path / "out"
    assert call("edit", "make", made[0], "--top", "2", "--out", cut).exit_code == 0
    held = ("--attention", "frozen", "--mlps", "linear", "--new-tokens", "4")
    done = call(
        *("edit", "apply", cut, "--run", made[0], *held), "--generate", PROMPT[1], "--out", out
    )
    assert done.exit_code == 0, done.output
    found = json.loads((out / "result.json").read_text())
    (row,), (prompt,) = found["generate"]["prompts"], found["prompts"]["prompts"]
    assert row["tokens_after"][0]["token"] == prompt["likeliest_after"]
    assert row["tokens_before"][0]["token"] == prompt["likeliest_before"]
    assert found["generate"]["mlps"] == "linear"
    assert (out / "result.html").exists()


def test_of_one_prompt_it_cannot_be_drawn_again(made, fails):
    assert "one prompt alone cannot be drawn again" in fails("stability", made[0])


def test_of_several_it_is_held_against_other_draws(tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    made = call("prompts", "make", "agreement_nounpp", "--n", 4, "--out", prompts)
    assert made.exit_code == 0, made.output
    discover(tmp_path / "run", prompts, "--nodes", "10")
    done = call("stability", tmp_path / "run", "--resamples", 5, "--reruns", 1)
    assert done.exit_code == 0, done.output
    assert "nodes by linear paths and ig, Jaccard" in done.output
    record = json.loads((tmp_path / "run" / "stability.json").read_text())
    assert record["estimator"] == "linear paths"
    assert 0 < record["nodes"]["jaccard"]["value"] <= 1


def test_its_features_are_ablated_and_a_replacement_graph_is_left(tmp_path, fails):
    run = tmp_path / "run"
    discover(run, *PAIR)
    done = call("ablate", run, "--top", "3", "--to", "mean", "--name", "three")
    assert done.exit_code == 0, done.output
    into = run / "ablations" / "three"
    result, left = json.loads((into / "result.json").read_text()), load(into / "graph.json")
    (output,) = [data for node, data in left.nodes(data=True) if node.kind == "logit"]
    assert left.graph["method"] == "replacement"
    assert output["pre_activation"] == pytest.approx(result["after"], rel=1e-4)
    ablated = [str(node) for node, data in left.nodes(data=True) if "ablated" in data]
    assert sorted(ablated) == sorted(result["features"])
    assert "Graph before the ablation" in (into / "graph.html").read_text(encoding="utf-8")
    assert "there is no dictionary for" in fails("ablate", run, "--features", "resid_post.1/3")


def test_it_is_not_resumed(tmp_path, fails):
    command = ("discover", *PROMPT, "--method", "replacement", "--out", tmp_path / "run")
    assert "is not kept in parts" in fails(*command, "--resume")


def test_it_is_drawn_and_taken_elsewhere(made):
    done = call("render", made[0], "--to", "svg,graphml,circuit-tracer")
    assert done.exit_code == 0, done.output
    (slug,) = json.loads((made[0] / "circuit-tracer" / "graph-metadata.json").read_text())["graphs"]
    written = json.loads((made[0] / "circuit-tracer" / f"{slug['slug']}.json").read_text())
    assert len(written["nodes"]) == read_run(made[0]).graph.number_of_nodes()

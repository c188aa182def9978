"""The demo as a whole, at a size of seconds: what it makes, what it says, what it replaces."""

import json
from dataclasses import replace

import pytest

from circuits.demo import ABLATION, MARK, TRAINING, DemoConfig, run_demo
from circuits.discovery.config import DiscoverConfig
from circuits.prompt_files import read_prompts
from hooked_qwen.stream import StreamConfig
from saes.suite import load_suite

SEED = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A demo of small dictionaries at few sites, by one gradient: its folder and its summary."""
    out = tmp_path_factory.mktemp("demo") / "out"
    config = DemoConfig(
        sites=("mlp_out",),
        prompts=4,
        training=replace(TRAINING, width=32, tokens=4096),
        stream=StreamConfig(batch_size=512, buffer_size=2048),
        discovery=DiscoverConfig(estimator="patching", nodes=40),
    )
    told = []
    lines = run_demo(
        out,
        config=config,
        seed=SEED,
        command=["circuits", "demo"],
        report=lambda what, *_, **__: told.append(what),
    )
    return out, lines, told


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_it_makes_everything_that_a_run_has(made):
    out, _, told = made
    assert {p.name for p in out.iterdir()} == {MARK, "dictionaries", "prompts.jsonl", "run"}
    assert len(load_suite(out / "dictionaries")) == 5
    assert len(read_prompts(out / "prompts.jsonl")) == 4
    found = {p.name for p in (out / "run").iterdir()}
    assert found >= {"graph.json", "graph.html", "graph.svg", "graph.pdf", "manifest.json"}
    assert found >= {"verification.json", "verification.svg", "verification.pdf", "ablations"}
    assert [p.name for p in (out / "run" / "ablations").iterdir()] == [ABLATION]
    assert not list(out.rglob(".partial-*"))
    assert {"loading", "node effects", "edges"} <= set(told)


def test_its_seed_draws_the_weights_the_prompts_and_the_controls(made):
    out, *_ = made
    record = read(out / "dictionaries" / "mlp_out.1" / "dictionary.json")
    assert record["training"]["seed"] >= SEED
    manifest = read(out / "run" / "manifest.json")
    assert manifest["seed"] == SEED
    assert manifest["command"] == ["circuits", "demo"]
    for path in ("verification.json", f"ablations/{ABLATION}/result.json"):
        assert read(out / "run" / path)["made_from"]["seed"] == SEED


def test_its_summary_says_what_the_files_say(made):
    out, lines, _ = made
    said = dict(line.split(maxsplit=1) for line in lines)
    assert list(said) == ["trained", "prompts", "metric", "circuit", "estimate", "faithful",
                          "ablated", "page", "figures", "took"]  # fmt: skip
    graph, check = read(out / "run" / "graph.json"), read(out / "run" / "verification.json")
    assert said["trained"].startswith("5 dictionaries, median FVU ")
    assert said["prompts"].startswith("4 of agreement_nounpp, ")
    assert f"logit difference {graph['meta']['clean_metric']:.2f}" in said["metric"]
    counts = f"{len(graph['nodes'])} nodes, {len(graph['edges'])} edges; strongest: "
    assert said["circuit"].startswith(counts)
    assert f"Spearman {check['nodes']['spearman']:.2f}" in said["estimate"]
    at = check["curves"]["sizes"].index(100)
    rows = check["curves"]["rows"]
    assert f"100 nodes {rows['circuit']['faithfulness'][at]:.2f}, " in said["faithful"]
    assert said["faithful"].endswith(f"neurons {rows['neurons']['faithfulness'][at]:.2f}")
    result = read(out / "run" / "ablations" / ABLATION / "result.json")
    assert len(result["features"]) == 10
    assert f"{result['before']:.2f} becomes {result['after']:.2f}; " in said["ablated"]
    assert said["page"] == str(out / "run" / "graph.html")


class ReachedError(Exception):
    """The demo began to work."""


def begin(out, **options):
    """A demo that ends where it tells that the model is loaded."""

    def stop(*_):
        raise ReachedError

    run_demo(out, report=stop, **options)


def test_it_takes_the_place_of_a_demo_and_of_nothing_else(made, tmp_path):
    out, *_ = made
    with pytest.raises(ReachedError):
        begin(out)
    with pytest.raises(ReachedError):
        begin(tmp_path / "new")
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").write_text("")
    with pytest.raises(ReachedError):
        begin(tmp_path / "hidden")
    mine = tmp_path / "mine" / "dictionaries" / "suite.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("days of training")
    with pytest.raises(ValueError, match="is not empty and holds no demo: choose another --out"):
        begin(tmp_path / "mine")
    assert not (tmp_path / "mine" / MARK).exists()
    with pytest.raises(ReachedError):
        begin(tmp_path / "mine", force=True)
    assert mine.read_text() == "days of training"


def test_ablations_of_the_user_s_own_keep_a_demo_in_place(tmp_path):
    (tmp_path / MARK).write_text("{}")
    ablations = tmp_path / "run" / "ablations"
    (ablations / ABLATION).mkdir(parents=True)
    with pytest.raises(ReachedError):
        begin(tmp_path)
    for name in ("b", "a"):
        (ablations / name).mkdir()
    with pytest.raises(ValueError, match=r"holds 2 ablations of yours \(a, b\): choose another"):
        begin(tmp_path)
    with pytest.raises(ReachedError):
        begin(tmp_path, force=True)

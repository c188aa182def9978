"""SHIFT as a folder: what is kept of a run that is cut off, and which seeds a record holds."""

import gc
import json
import re
from dataclasses import replace

import pytest
import torch

from circuits.analysis import Analysis
from circuits.attribution.estimators import ESTIMATORS
from circuits.discovery.resume import UNFINISHED
from circuits.discovery.sparse_feature import discover
from circuits.graph import as_json
from circuits.opening import load_model
from circuits.runs.finished_run import read_run
from circuits.runs.shift_run import cut_edit, shift_run
from circuits.shift.case import ShiftCase
from circuits.shift.methods import METHODS, unedited
from circuits.shift.shift import ShiftConfig
from circuits.shift.texts import shift_data
from saes.suite import load_suite

CONFIG = ShiftConfig(
    seeds=2, layer=1, estimator="patching", nodes=20, circuit_texts=8, batch_size=4
)
TEXTS = 8


class CutError(Exception):
    pass


@pytest.fixture(scope="module", autouse=True)
def model(small_chunks_of_file):
    """Few examples, which are held to what they are elsewhere."""
    small_chunks_of_file("circuits.runs.discover_run.EXAMPLE_TOKENS", 128)
    return load_model("bundled")


@pytest.fixture
def gradients(monkeypatch):
    """An entry for each batch of prompts that gradients are taken on."""
    own, seen = ESTIMATORS["patching"], []

    def counted(analysis, state):
        seen.append(len(state.rows))
        return own.estimate(analysis, state)

    monkeypatch.setitem(ESTIMATORS, "patching", replace(own, estimate=counted))
    return seen


def strongest_kept(judged):
    """A method that goes by what is known of the circuit: without the strongest feature kept."""
    cut = {f.node for f in judged.features if f.cut}
    node = next(node for node, _ in judged.ranking.features() if node not in cut)
    case = judged.case
    return {"strongest kept": list(case.under(lambda: case.ablated([node])))}


def run(out, config=CONFIG, **kwargs):
    """By two methods, which take less time than all."""
    options = {"texts": TEXTS, "methods": (unedited, strongest_kept)} | kwargs
    return shift_run("biographies", out, config=config, **options)


def cut_at(what, done):
    def report(doing, count, total, note=""):
        if (doing, count) == (what, done):
            raise CutError

    return report


IN_THE_SECOND_SEED = cut_at("seed 2 of 2: methods", 1)


def files(out):
    """Every file, without times and without where it lies."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.is_file():
            text = path.read_bytes().replace(str(out).encode(), b"OUT")
            text = re.sub(rb'"(wall_seconds|peak_memory_mb)": ?[\d.]+', b"", text)
            found[path.relative_to(out).as_posix()] = text
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing interrupts, and what it held when its second seed was under way."""
    alive = {}

    def report(doing, count, total, note=""):
        if (doing, count) == ("seed 2 of 2: methods", 1):
            found = gc.get_objects()
            alive["cases"] = sorted(x.seed for x in found if type(x) is ShiftCase)
            alive["states"] = sum(type(x) is Analysis and "states" in vars(x) for x in found)

    out = tmp_path_factory.mktemp("shift") / "whole"
    gc.collect()
    run(out, report=report)
    return out, alive


def test_no_seed_holds_its_states_while_another_is_under_way(whole):
    # The first seed's texts stay, for the circuit that is written at the end.
    assert whole[1] == {"cases": [0, 1], "states": 1}


def test_a_run_that_goes_on_ends_in_the_same_files(whole, tmp_path, gradients):
    out = tmp_path / "out"
    with pytest.raises(CutError):
        run(out, report=IN_THE_SECOND_SEED)
    assert not (out / "shift.json").exists()
    kept = {path.name for path in (out / UNFINISHED).iterdir()}
    assert {"seed-0000.json", "effects-0001.safetensors"} <= kept
    others = ({"config": replace(CONFIG, nodes=19)}, {"ask": Person(1)}, {"methods": METHODS})
    for other in others:
        with pytest.raises(ValueError, match=r"holds 1 finished seed of another run.* --force"):
            run(out, **other)
    # Two probes a seed, two batches each.
    assert len(gradients) == 8
    with pytest.warns(UserWarning, match="1 finished seed of 2"):
        run(out)
    assert len(gradients) == 12
    assert files(out) == files(whole[0])
    assert not (out / UNFINISHED).exists()


def test_the_circuit_is_what_discovery_finds(whole, model):
    """Discovery has the effects that features were judged by, and ends in the same."""
    data = shift_data("biographies", n=TEXTS, seed=0)
    case = ShiftCase.of(model, load_suite("bundled"), data, config=CONFIG, seed=0)
    own, found = read_run(whole[0] / "circuit").graph, discover(case.analysis).graph
    for graph in (own, found):
        for _, node in graph.nodes(data=True):
            # Those in the run come from more text.
            del node["label"]
    assert as_json(own)["edges"] == as_json(found)["edges"]
    assert as_json(own)["nodes"] == as_json(found)["nodes"]


def test_the_saved_cut_is_the_measured_one(model):
    """Norm outliers included: here every token of more than the median norm is said to be one."""
    data = shift_data("biographies", n=TEXTS, seed=0)
    case = ShiftCase.of(model, load_suite("bundled"), data, config=CONFIG, seed=0)
    ranked = case.label_effects().features()[:60]
    # Every dictionary's strongest: SAEs of the stream, of attention and of MLPs.
    cut = list({node.site: node for node, _ in ranked}.values())
    assert len(cut) > 3
    read = {}
    for factor in (1, 0.1):
        lower = {site: factor * limit for site, limit in case.analysis.norm_limits.items()}
        vars(case.analysis)["norm_limits"] = lower
        expected = case.read("balanced", case.ablated(cut))
        edit = cut_edit(case, cut)
        read[factor] = case.read("balanced", edit.applied(case.analysis))
        torch.testing.assert_close(read[factor], expected, atol=1e-5, rtol=0)
    assert not torch.allclose(read[1], read[0.1], atol=1e-3)


class Person:
    """Cuts the first features that are not judged yet, as many as there is patience for."""

    def __init__(self, patience):
        self.patience = patience

    def __call__(self, case, features):
        left = [i for i, f in enumerate(features) if f.cut is None][: self.patience]
        return [
            replace(f, cut=True, by="person") if i in left else f for i, f in enumerate(features)
        ]


def test_who_judges_more_on_going_on_is_heard(tmp_path, gradients):
    out = tmp_path / "out"
    with pytest.raises(CutError):
        run(out, ask=Person(1), report=IN_THE_SECOND_SEED)
    assert len(gradients) == 4
    run(out, ask=Person(2))
    assert len(gradients) == 4
    run(tmp_path / "at once", ask=Person(3))
    assert files(out) == files(tmp_path / "at once")
    record = json.loads((out / "shift.json").read_text())
    assert [sum(bool(f["cut"]) for f in seed) for seed in record["features"]] == [3, 3]


def test_a_first_seed_other_than_zero(whole, tmp_path):
    """Alone it is what it is after another."""
    record = run(tmp_path / "out", replace(CONFIG, seed=1, seeds=1))
    both = json.loads((whole[0] / "shift.json").read_text())
    assert (record["config"]["seed"], record["config"]["seeds"]) == (1, 1)
    for part in ("sites", "losses", "features"):
        assert record[part] == both[part][1:]
    assert record["features"] != both["features"][:1]
    assert {method["seeds"] for method in record["methods"].values()} == {1}
    lines = (tmp_path / "out" / "circuit" / "prompts.jsonl").read_text().splitlines()
    own = {text.text for text in shift_data("biographies", n=TEXTS, seed=1).ambiguous}
    assert {json.loads(line)["clean"] for line in lines} <= own

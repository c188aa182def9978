"""SHIFT on the bundled model: texts' means by plain hooks, every method, the folder it writes."""

import json

import pytest
import torch
from typer.testing import CliRunner

from circuits.cli.app import app
from circuits.runs.finished_run import read_run
from circuits.shift.finished import FinishedSeed
from circuits.shift.judging import by_rule, circuit_features, read_judgements
from circuits.shift.methods import Judgement, unedited
from circuits.shift.pooled import encoded, pooled, pooled_features
from circuits.shift.shift import ShiftConfig, Shifted
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit_checks import check_edit
from saes.edit_file import Edit
from saes.identity import suite_hash
from saes.suite import load_suite
from tests.circuits.conftest import call

SITE = Site("resid_post", 2)


def test_a_feature_is_its_mean_over_the_same_tokens(case):
    node = Node("resid_post.2", 5)
    nodes = [node, Node("mlp_out.1", 3), node]
    texts = encoded(case.model, case.data.balanced[:4])
    found = pooled_features(case.model, case.suite, texts, nodes)
    torch.testing.assert_close(found[:, 0], found[:, 2])
    means = pooled(case.model, texts, [SITE])
    for i, text in enumerate(case.data.balanced[:4]):
        alone = encoded(case.model, [text])
        again = pooled_features(case.model, case.suite, alone, nodes)
        torch.testing.assert_close(again[0], found[i], atol=1e-5, rtol=1e-4)
        own = pooled(case.model, alone, [SITE]).means[SITE][0]
        torch.testing.assert_close(own, means.means[SITE][i], atol=1e-5, rtol=1e-4)


def test_a_table_has_the_numbers_of_the_record(case):
    label, spurious = case.label_effects(), case.spurious_effects()
    features = by_rule(circuit_features(label, spurious, 5), label, spurious)
    said = unedited(Judgement(case, features, label))
    seed = FinishedSeed(site=case.site, losses=case.losses, features=features, said=said)
    found = Shifted(ShiftConfig(seeds=1), case, [seed])
    (row,) = found.table().to_dict("records")
    (method,) = found.record()["methods"].values()
    for number in ("label", "spurious", "worst"):
        assert row[number] == pytest.approx(method[number]["value"], abs=1e-6)
        ends = [row[f"{number}, low"], row[f"{number}, high"]]
        assert ends == pytest.approx(method[number]["interval"], abs=1e-6)
    assert "nothing changed" in found._repr_html_()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("shift") / "out"
    done = call(
        "shift", "biographies", "--out", out, "--texts", 16, "--seeds", 2, "--estimator",
        "patching", "--nodes", 30, "--layer", 2, "--circuit-texts", 8,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return out


def test_every_method_stands_in_the_record(folder):
    record = json.loads((folder / "shift.json").read_text())
    assert record["schema"] == "shift/1"
    expected = {
        "nothing changed",
        "SHIFT",
        "SHIFT, head trained again",
        "random nodes",
        "features as active, head trained again",
        "neurons",
        "neurons inside the MLPs, head trained again",
        "words deleted",
        "threshold recalibrated",
        "mean difference removed, head trained again",
        "linear erasure (LEACE)",
        "concept bottleneck: kept features alone",
        "trained on balanced texts (ceiling)",
    }
    assert expected <= record["methods"].keys()
    for method in record["methods"].values():
        for number in ("label", "spurious", "worst"):
            assert 0 <= method[number]["value"] <= 1
        assert len(method["groups"]) == 4
    assert record["methods"]["random nodes"]["draws"] == 3
    assert len(record["features"]) == len(record["sites"]) == 2


def test_the_cut_is_an_edit_and_the_circuit_a_run(folder):
    record = json.loads((folder / "shift.json").read_text())
    cut = [f["node"] for f in record["features"][0] if f["cut"]]
    edit = Edit.load(folder / "edit.json")
    assert [str(op.node) for op in edit.operations] == cut
    suite = load_suite("bundled")
    check_edit(suite, edit)
    assert edit.suite_told() == f"{suite.summary()} ({suite_hash(suite)})"
    assert all(op.norm_below for op in edit.operations)
    run = read_run(folder / "circuit")
    assert run.graph.graph["metric"].startswith("readout:resid_post.2@mean:")
    assert run.open().analysis.metric.clean.shape == (8,)
    page = (folder / "shift.html").read_text()
    assert all(f'"{f["node"]}":{{"promoted"' in page for f in record["features"][0])


def test_what_a_person_judged_is_taken_and_nothing_is_replaced_unasked(folder, tmp_path, fails):
    record = json.loads((folder / "shift.json").read_text())
    first = record["features"][0][0]["node"]
    command = [
        "shift", "biographies", "--texts", 16, "--seeds", 1, "--estimator", "patching",
        "--nodes", 30, "--layer", 2, "--circuit-texts", 8,
    ]  # fmt: skip
    assert "made from something else" in fails(*command, "--out", folder)
    out = tmp_path / "own"
    asked = [str(x) for x in (*command, "--out", out, "--ask")]
    done = CliRunner().invoke(app, asked, input="c\na name\nstop\n")
    assert done.exit_code == 0, done.output
    assert "1 of 30: effect on the probe of the label" in done.output
    own = json.loads((out / "shift.json").read_text())
    assert [f["node"] for f in own["features"][0] if f["cut"]] == [first]
    said = read_judgements(out / "judgements.json")
    assert {str(n): e["reason"] for n, e in said.items()} == {first: "a name"}
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps({"features": [{"node": first, "cut": False}]}))
    command += ["--judgements", kept, "--out", tmp_path / "none"]
    assert "nothing to shift" in fails(*command)
    assert not (tmp_path / "none").exists()

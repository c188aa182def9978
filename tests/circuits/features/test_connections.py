"""What a feature is connected to by weights, as a record and on the terminal."""

import json

import pytest
from typer.testing import CliRunner

from circuits import suites
from circuits.cli.app import app
from circuits.features.connections import connections_of
from hooked_qwen.bundled import language
from hooked_qwen.load import load
from hooked_qwen.nodes import Node
from saes.evaluation.metrics import held_out_blocks
from saes.suite import load_suite
from tests.circuits.conftest import call
from transcoders.coactivation import coactivation
from transcoders.weights import Head, strongest_inputs, strongest_outputs


@pytest.fixture(scope="module")
def bundled():
    return load("bundled", device="cpu"), load_suite("bundled", mlp="transcoder")


@pytest.fixture(scope="module")
def record(bundled):
    return connections_of(*bundled, "mlp_out.4/17", 4, names={"resid_post.3/86": "dreams"})


def called(nodes):
    return [f"{node.site}/{node.feature}" for node in nodes]


def test_a_record_names_what_the_weights_find(bundled, record):
    node, shown = Node("mlp_out.4", 17), record["reads"]["features"]
    read = strongest_inputs(*bundled, node, 4)
    assert [entry["feature"] for entry in shown] == called(c.source for c in read)
    assert [e["weight"] for e in shown] == pytest.approx([c.weight for c in read], 1e-5)
    readers = strongest_outputs(*bundled, node, 4)
    shown = record["writes"]["features"]
    assert [entry["feature"] for entry in shown] == called(c.target for c in readers)


def test_features_are_called_as_people_call_them(record):
    labels = {e["feature"]: e["label"] for e in record["reads"]["features"]}
    assert labels.pop("resid_post.3/86") == "dreams"
    assert all(label.startswith("→ ") for label in labels.values())


def test_what_goes_through_a_head_names_the_head(bundled, record):
    layers = {int(e["head"].split(".")[0]) for e in record["reads"]["heads"]}
    assert layers <= {0, 1, 2, 3, 4}
    assert len(record["reads"]["heads"]) == 4
    assert all("head" not in e for e in record["reads"]["features"])


def test_what_does_not_read_the_stream_has_no_reads(bundled):
    record = connections_of(*bundled, "attn_out.2/5", 3)
    assert "reads" not in record
    assert len(record["writes"]["features"]) == 3


def test_with_a_text_what_is_read_is_ranked_by_what_it_adds_there(bundled):
    """An entry's mean is weight times factor, so that what is never there is not shown first."""
    model, suite = bundled
    blocks = list(held_out_blocks(language.documents(seed=2), model, tokens=1024))
    read = connections_of(model, suite, "mlp_out.4/421", 4, blocks=blocks)
    assert read["text"]["tokens"] == 1024
    there = coactivation(model, suite, Node("mlp_out.4", 421), blocks, [Head(4, 3)])
    assert read["text"]["on"] == there.on > 0
    for entry in read["reads"]["features"]:
        name, _, index = entry["feature"].partition("/")
        factor = float(there.factor(name, None)[int(index)])
        assert entry["mean"] == pytest.approx(entry["weight"] * factor, rel=1e-4)
        assert entry["together"] == pytest.approx(float(there.together(name)[int(index)]), rel=1e-5)
        assert entry["together"] > 0
    for kind in ("features", "heads", "tokens"):
        means = [abs(entry["mean"]) for entry in read["reads"][kind]]
        assert len(means) == 4
        assert means == sorted(means, reverse=True)
    plain = connections_of(model, suite, "mlp_out.4/421", 4)
    assert "text" not in plain
    assert all("mean" not in e for e in plain["reads"]["features"])
    assert plain["reads"]["features"] != read["reads"]["features"]


def test_the_command_shows_and_writes_them(tmp_path):
    out = tmp_path / "weights.json"
    arguments = ["weights", "bundled", "mlp_out.4/17", "--top", "4", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0
    record = json.loads(out.read_text())
    assert record["feature"] == "mlp_out.4/17"
    for entry in (*record["reads"]["features"], *record["writes"]["features"]):
        assert entry["feature"] in done.output
    assert f"head {record['reads']['heads'][0]['head']}" in done.output
    assert CliRunner().invoke(app, arguments).exit_code == 0
    arguments[4] = "5"
    with pytest.raises(ValueError, match="is there already, made from something else"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert json.loads(out.read_text()) == record


def test_the_seed_draws_the_text(tmp_path):
    def reads(name, seed):
        out = tmp_path / name
        arguments = ("weights", "bundled", "mlp_out.4/421", "--text", "bundled", "--tokens", 512)
        assert call(*arguments, "--seed", seed, "--out", out).exit_code == 0
        return json.loads(out.read_text())["reads"]["features"]

    assert reads("one", 0) == reads("again", 0) != reads("other", 1)


def test_a_feature_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="mlp_out.4 has features 0 to 511, not 512"):
        suites.connections("bundled", "mlp_out.4/512", "bundled", top=3)

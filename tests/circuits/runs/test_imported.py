"""A graph of another program as a run."""

import copy
import json

import pytest

from tests.circuits.attribution_graphs.sample import SAMPLE, changed, link
from tests.circuits.conftest import call


@pytest.mark.parametrize("written", [lambda x: x, json.dumps], ids=["lists", "as in an address"])
def test_what_is_pinned_and_grouped_comes_along(tmp_path, written):
    record, path, run = copy.deepcopy(SAMPLE), tmp_path / "austin.json", tmp_path / "austin"
    pinned = ["0_2_1", "2_812_2", "gone"]
    groups = [["Texas", "0_2_1", "gone"], ["say a city", "2_812_2", "0_2_1"], ["none", "gone"]]
    record["qParams"] |= {
        "pinnedIds": pinned if written is not json.dumps else ",".join(pinned),
        "supernodes": written(groups),
    }
    path.write_text(json.dumps(record), encoding="utf-8")
    assert call("import", path, "--out", run).exit_code == 0
    state = json.loads((run / "imported-state.json").read_text(encoding="utf-8"))
    assert state["pinned"] == ["clt.0/2@1", "clt.2/812@2"]
    assert state["groups"] == {"Texas": ["clt.0/2@1"], "say a city": ["clt.2/812@2"]}
    done = call("render", run, "--to", "svg", "--groups", run / "imported-state.json")
    assert done.exit_code == 0, done.output
    path.write_text(json.dumps(SAMPLE), encoding="utf-8")
    assert call("import", path, "--out", run, "--force").exit_code == 0
    assert not (run / "imported-state.json").exists()


def test_a_run_that_was_imported_is_drawn_and_compared_and_nothing_more(tmp_path, fails):
    path, run = tmp_path / "austin.json", tmp_path / "austin"
    path.write_text(json.dumps(SAMPLE), encoding="utf-8")
    done = call("import", path, "--out", run)
    assert done.exit_code == 0, done.output
    done = call("render", run, "--to", "html,svg,csv,circuit-tracer")
    assert done.exit_code == 0, done.output
    done = call("compare", run, run, "--out", tmp_path / "compare.html")
    assert done.exit_code == 0, done.output
    assert "7 the same in both" in done.output
    again = tmp_path / "again"
    exported = run / "circuit-tracer" / "austin.json"
    assert call("import", exported, "--out", again).exit_code == 0
    assert (again / "graph.json").read_bytes() == (run / "graph.json").read_bytes()
    for command in (
        ("verify", run),
        ("ablate", run, "--top", 1),
        ("stability", run),
        ("edit", "make", run, "--top", 1, "--out", tmp_path / "edit.json"),
    ):
        assert "was imported from austin.json" in fails(*command)
    assert "there is no file at" in fails("import", tmp_path / "no.json", "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    path.write_text(json.dumps(changed(scan="other")), encoding="utf-8")
    assert "made from something else" in fails("import", path, "--out", run)


def test_edits_are_made_of_an_imported_graph_once_its_dictionaries_are_named(tmp_path):
    record = copy.deepcopy(SAMPLE)
    record["metadata"]["transcoder_list"] = ["one for each layer"] * 3
    record["nodes"][2]["node_id"] = "2_5_2"
    record["links"] = [link("2_5_2", "27_22605_2", 3.5)]
    path, run, edit = tmp_path / "austin.json", tmp_path / "austin", tmp_path / "edit.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    assert call("import", path, "--out", run, "--dictionaries", "bundled").exit_code == 0
    done = call("edit", "make", run, "--top", 1, "--out", edit)
    assert done.exit_code == 0, done.output
    (operation,) = json.loads(edit.read_text())["operations"]
    assert operation["node"] == "mlp_out.2/5@2"

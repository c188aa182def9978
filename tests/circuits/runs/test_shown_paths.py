"""Paths on a page for other people: from the page on, and nothing of the machine's own folders."""

import json
import re
from pathlib import Path

import pytest

from circuits.runs.shown_paths import in_record, shown_argument, shown_path
from hooked_qwen import bundled
from hooked_qwen.files import content_hash
from tests.circuits.attribution_graphs.sample import SAMPLE
from tests.circuits.conftest import call


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/home/ann/work/run", "run"),
        ("/home/ann/work", "."),
        ("/home/ann/data/prompts.jsonl", "../data/prompts.jsonl"),
        ("/srv/shared/models/Qwen3-0.6B", "…/models/Qwen3-0.6B"),
        ("/model.gguf", "…/model.gguf"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B"),
        ("bundled", "bundled"),
        (str(bundled.PATH), "bundled"),
        (str(bundled.DICTIONARIES), "bundled"),
    ],
)
def test_a_path_is_told_from_the_page_on(path, shown):
    assert shown_path(path, Path("/home/ann/work")) == shown
    assert shown_argument(f"--x={path}", Path("/home/ann/work")) == f"--x={shown}"


def test_only_texts_of_a_record_change():
    record = {"/a": ["/a/b", 1, None, {"x": "at /a/b: 3"}]}
    assert in_record(record, lambda t: t.replace("/a/b", "b")) == {
        "/a": ["b", 1, None, {"x": "at b: 3"}]
    }


def test_a_report_names_no_folder_of_the_machine(tmp_path):
    """Neither that where the run lies nor those of what it was made from, in no part of it."""
    graph, run, out = tmp_path / "g.json", tmp_path / "runs" / "run", tmp_path / "report.html"
    graph.write_text(json.dumps(SAMPLE), encoding="utf-8")
    assert call("import", graph, "--out", run).exit_code == 0
    manifest = json.loads((run / "manifest.json").read_text())
    dictionaries = tmp_path / "models" / "dictionaries"
    manifest |= {
        "command": ["circuits", "discover", str(tmp_path / "p.jsonl"), f"--out={run}"],
        "model_path": str(bundled.PATH),
        "dictionaries_path": str(dictionaries),
        "prompts_path": str(tmp_path / "p.jsonl"),
    }
    (run / "manifest.json").write_text(json.dumps(manifest))
    rerun = {
        "schema": "rerun/1",
        "edit": [f"5 features of 12 dictionaries (ours) at {dictionaries}: set to 0"],
        "made_from": {"run": content_hash(run / "graph.json")},
    }
    (run.parent / "cut").mkdir()
    (run.parent / "cut" / "result.json").write_text(json.dumps(rerun))
    done = call("report", run, "--out", out)
    assert done.exit_code == 0, done.output
    page = re.sub(r"base64,[^\"]*", "", out.read_text(encoding="utf-8"))
    assert str(tmp_path) not in page
    assert str(bundled.PATH.parent) not in page
    for said in ("circuits discover p.jsonl --out=runs/run", "(ours) at models/dictionaries: set"):
        assert said in page

"""Paths on a page for other people: from the page on, and nothing of the machine's own folders."""

import re
from pathlib import Path

import pytest

from circuits.runs.shown_paths import in_record, shown_argument, shown_path
from hooked_qwen import bundled
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
    """Neither that where the run lies nor that where the project does."""
    run, edit, out = tmp_path / "run", tmp_path / "cut.json", tmp_path / "report.html"
    more = ("--do", "add", "--value", 1, "--positions", "all")
    prompt = ("--clean", "The judges by the bucket", "--patch", "The judge by the bucket")
    assert (
        call("discover", *prompt, "--estimator", "patching", "--nodes", 10, "--out", run).exit_code
        == 0
    )
    assert call("edit", "make", run, "--top", 1, *more, "--out", edit).exit_code == 0
    assert call("edit", "apply", edit, "--run", run, "--out", tmp_path / "cut").exit_code == 0
    assert call("report", run, "--out", out).exit_code == 0
    page = re.sub(r"base64,[^\"]*", "", out.read_text(encoding="utf-8"))
    assert str(tmp_path) not in page
    assert str(bundled.PATH.parent) not in page
    assert "Edits rerun" in page
    assert "run/prompts.jsonl" in page

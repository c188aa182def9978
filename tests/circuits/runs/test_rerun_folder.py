"""The folder of a rerun: whole or not there, and of one rerun alone."""

import json

import pytest

from circuits import graph as graphs
from circuits.render.pages.rerun.rerun_page import Graphs
from circuits.runs.rerun import graph_record
from circuits.runs.rerun_folder import GRAPH, PAGE, RESULT, check_rerun, write_folder
from tests.circuits import synthetic
from tests.circuits.render.pages.rerun.test_rerun_page import record, text

SOURCE = {"edit": "half.json"}


def test_a_rerun_of_something_else_and_what_is_no_rerun_stay(tmp_path):
    check_rerun(tmp_path / "none", SOURCE, force=False)
    (tmp_path / "out").mkdir()
    check_rerun(tmp_path / "out", SOURCE, force=False)
    (tmp_path / "out" / RESULT).write_text(json.dumps({"made_from": SOURCE}))
    check_rerun(tmp_path / "out", SOURCE, force=False)
    with pytest.raises(ValueError, match="result.json is there already, made from something else"):
        check_rerun(tmp_path / "out", {"edit": "other.json"}, force=False)
    check_rerun(tmp_path / "out", {"edit": "other.json"}, force=True)
    for name in (GRAPH, PAGE, "manifest.json"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(ValueError, match=f"holds {name} and no rerun: choose another --out"):
            check_rerun(folder, SOURCE, force=True)
    with pytest.raises(ValueError, match="is a file: give a folder"):
        check_rerun(folder / name, SOURCE, force=True)


def test_a_graph_is_written_where_one_was_found_and_taken_away_where_none_was(tmp_path):
    before, after = synthetic.circuit(20, seed=1), synthetic.circuit(20, seed=2)
    found = record(text=text(), graph=graph_record(before, after))
    shown = Graphs(before=before, after=after, cards={})
    write_folder(tmp_path / "out", found, title="cut", shown=shown)
    assert set(graphs.load(tmp_path / "out" / GRAPH)) == set(after)
    write_folder(tmp_path / "out", record(text=text()), title="cut", shown=None)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PAGE, RESULT]
    assert json.loads((tmp_path / "out" / RESULT).read_text()) == json.loads(
        json.dumps(record(text=text()))
    )


def test_a_page_that_cannot_be_written_leaves_the_folder_as_it_was(tmp_path):
    broken = record(text=text() | {"tokens": float("nan")})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_folder(tmp_path / "out", broken, title="cut", shown=None)
    assert not (tmp_path / "out").exists()

"""The notebooks of the docs run from top to bottom, and show what they say."""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells_of(path: Path) -> list[dict]:
    """Its code cells."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def shown(cell: dict) -> str:
    """What is stored of what it shows."""
    return "".join(
        line
        for output in cell["outputs"]
        for line in output.get("text") or output["data"]["text/plain"]
    )


def test_there_is_one():
    assert [path.stem for path in NOTEBOOKS] == ["main_job"]


def test_the_main_job_runs_and_comes_to_what_it_shows(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    (path,) = NOTEBOOKS
    cells = cells_of(path)
    printed = []
    for number, cell in enumerate(cells):
        exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
        printed.append(capsys.readouterr().out)
    assert all(map(shown, cells))
    # Figures are the same but for rounding: what is compared are texts.
    assert printed[0] == shown(cells[0])
    assert printed[-2] == shown(cells[-2])
    assert printed[-1] == shown(cells[-1])
    strongest = list(names["circuit"].nodes.index[:3])
    assert all(node in shown(cells[1]) for node in strongest)
    assert names["cut"].record["after"] < names["cut"].record["before"]
    assert all(file.exists() for file in names["files"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_small(path):
    assert path.stat().st_size < 60_000

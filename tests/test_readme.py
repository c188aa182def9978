"""The README's commands and Python, run as they stand, but on fewer prompts and texts."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from circuits.cli.app import app

README = Path(__file__).parents[1] / "README.md"
DOCS = sorted((README.parent / "docs").glob("*.md"))
PROMPTS = 8
"Of those that are made: more are further batches of the same, which other tests have."
FEWER = ("--texts 40 --seeds 2", "--texts 16 --seeds 1")
"Of a shift, whose seeds are each the same again."


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readme")


def test_every_command_runs_in_order(folder, monkeypatch):
    monkeypatch.chdir(folder)
    commands = [
        line
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("circuits ")
    ]
    assert len(commands) >= 6
    commands = [command.replace(*FEWER) for command in commands]
    for command in commands:
        result = CliRunner().invoke(app, shlex.split(command)[1:], catch_exceptions=False)
        assert result.exit_code == 0, (command, result.output)
        if " make agreement" in command:
            keep_the_first(folder / "prompts.jsonl")
    assert (folder / "run" / "graph.html").stat().st_size > 100_000
    assert (folder / "compare.html").exists()
    said = (folder / "report.html").read_text(encoding="utf-8")
    # The rerun of the edit lies beside the run, and is of its graph.
    assert all(part in said for part in ("top-10", "Edits rerun beside the run", "imported"))
    assert (folder / "run" / "graph.pdf").exists()


def keep_the_first(prompts: Path) -> None:
    lines = prompts.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 40
    prompts.write_text("".join(lines[:PROMPTS]), encoding="utf-8")


def test_the_python_runs_after_them(folder, monkeypatch):
    monkeypatch.chdir(folder)
    names: dict = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert names["circuit"].graph.number_of_nodes() > 100
    assert (names["changes"]["status"] == "ablated").sum() == 10
    assert names["after"] < names["before"]
    assert names["text"].startswith("The keys near the cabinet")
    assert (folder / "circuit.pdf").exists()


def test_the_python_of_the_dictionaries_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("python", README.parent / "docs" / "dictionaries.md"):
        exec(compile(block, "dictionaries.md", "exec"), names)
    assert names["quality"][0].fvu < 1
    assert len(names["suite"]) == 15


def test_the_python_of_the_edits_page_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in blocks("python", README.parent / "docs" / "edits.md"):
        exec(compile(block, "edits.md", "exec"), names)
    assert names["before"].endswith(" sing in the evening")
    assert names["after"].endswith(" prays in the evening")
    sit, sits = (names["analysis"].model.tokenizer.encode(word)[0] for word in (" sit", " sits"))
    assert float(names["singular"][sit]) == pytest.approx(0.012, abs=5e-4)
    assert float(names["singular"][sits]) == pytest.approx(0.014, abs=5e-4)


def test_the_python_of_the_transcoders_page_gives_its_numbers():
    page = README.parent / "docs" / "transcoders.md"
    names: dict = {}
    for block in blocks("python", page):
        exec(compile(block, "transcoders.md", "exec"), names)
    text, weights, feature = page.read_text(encoding="utf-8"), names["weights"], names["feature"]
    shown = re.findall(r"^\| `(mlp_out\S+)` \| ([\d.]+) \|$", text, re.MULTILINE)
    assert len(shown) == 5
    for node, weight in shown:
        assert weights[node] == pytest.approx(float(weight), abs=0.006)
    assert f"| {len(weights) - 5} others" in text
    assert feature["pre_activation"] == pytest.approx(47.91, abs=0.006)
    assert float(names["total"]) == pytest.approx(feature["pre_activation"], rel=1e-5)
    meta = names["circuit"].graph.graph
    assert meta["replacement_score"] == pytest.approx(0.59, abs=0.006)
    assert meta["completeness_score"] == pytest.approx(0.89, abs=0.006)
    heads = {str(head): weight for head, weight in names["edge"].heads.items()}
    assert heads["head 3.0"] == pytest.approx(1.12, abs=0.006)
    assert heads["head 3.1"] == pytest.approx(0.80, abs=0.006)
    assert names["score"].total == pytest.approx(10.7, abs=0.06)
    paths = names["paths"]
    assert paths.total == pytest.approx(47.91, abs=0.006)
    assert paths.weight == pytest.approx(46.81, abs=0.006)
    assert [weight for _, weight in names["strongest"]] == pytest.approx(
        [9.15, 3.03, -2.93, -2.66, 2.65], abs=0.006
    )
    assert names["merged"].nodes[names["node"]]["paths"] == pytest.approx(paths.weight)
    assert names["part"].replacement == pytest.approx(0.083, abs=0.0006)
    assert names["part"].completeness == pytest.approx(0.64, abs=0.006)
    shares = meta["heads"]["influence"]
    assert list(shares)[:4] == ["0.0", "0.1", "3.0", "3.1"]
    assert (shares["3.0"], meta["heads"]["direct"]) == pytest.approx((0.032, 0.61), abs=0.006)
    largest = names["score"].strongest(3)
    assert str(largest[1][1]) == "mlp_out.0/375@1"
    assert largest[1][2] == pytest.approx(0.77, abs=0.006)
    rows = re.findall(r"^\| (`mlp_out\S+`|both)((?: \| -?[\d.]+){4}) \|$", text, re.MULTILINE)
    columns = [("patterns", "linear"), ("free", "linear"), ("free", "model")]
    assert len(rows) == 4
    for node, cells in rows:
        name = "both" if node == "both" else node.split("/")[1].split("@")[0]
        shown = [float(cell) for cell in cells.split("|")[1:]]
        found = [names["predicted"][name], *(names["changes"][c][name] for c in columns)]
        assert found == pytest.approx(shown, abs=0.006)


def test_the_python_of_the_shift_page_runs():
    names: dict = {}
    for block in blocks("python", README.parent / "docs" / "shift.md"):
        exec(compile(block, "shift.md", "exec"), names)
    table = names["found"].table()
    assert {"nothing changed", "SHIFT", "trained on balanced texts (ceiling)"} <= set(table.index)


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.stem)
def test_the_files_it_links_to_are_there(page):
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text())
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing

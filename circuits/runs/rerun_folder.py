"""The folder of a rerun: its record, its graph where one was found, and the page of both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from circuits import graph as graphs
from circuits.graph import write_json
from circuits.render.pages.rerun.rerun_page import Graphs, rerun_page
from circuits.runs.overwrite import check_record
from hooked_qwen.files import check_not_file, write_text_atomically

RESULT, GRAPH, PAGE = "result.json", "graph.json", "result.html"


def check_rerun(folder: Path, made_from: Mapping[str, Any], *, force: bool) -> None:
    """Raise `ValueError` where a rerun would take the place of something else.

    Of a rerun made from something else, unless by `force`; of anything that is no rerun always.
    """
    check_not_file(folder)
    names = (GRAPH, PAGE, "manifest.json")
    others = [name for name in names if (folder / name).exists()]
    if others and not (folder / RESULT).exists():
        raise ValueError(f"{folder} holds {others[0]} and no rerun: choose another --out")
    check_record(folder / RESULT, made_from, force=force)


def write_folder(
    folder: Path, record: Mapping[str, Any], *, title: str, shown: Graphs | None
) -> None:
    """Write a rerun; the record comes last, so that a folder with one is whole."""
    html = rerun_page(record, title=title, graphs=shown)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in (RESULT, GRAPH, PAGE):
        (folder / stale).unlink(missing_ok=True)
    if shown is not None:
        graphs.save(shown.after, folder / GRAPH)
    write_text_atomically(folder / PAGE, html)
    write_json(record, folder / RESULT)

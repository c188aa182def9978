"""What a command may replace: nothing that a user made is lost unless `--force` says so.

A result is replaced without asking by the same command only: made from the same inputs with the
same settings, by hash, and with nothing beside it that another command added. Everything else is
refused before any work is done.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from circuits.render.words import counted
from hooked_qwen.files import check_not_file

MADE_FROM = "made_from"
"Where a record says what it was made from."
FIGURES = (
    "graph.svg",
    "graph.pdf",
    "graph.png",
    "graph.tex",
    "graph.caption.tex",
    "comparison.svg",
    "comparison.pdf",
    "comparison.png",
    "comparison.tex",
    "comparison.caption.tex",
    "verification.svg",
    "verification.pdf",
    "verification.png",
)
EXPORTS = (
    "graph.gexf",
    "graph.graphml",
    "graph.dot",
    "nodes.csv",
    "edges.csv",
    "nodes.parquet",
    "edges.parquet",
)
VIEW = "imported-state.json"
"What was pinned and grouped in a file that was imported."
VIEWERS = ("neuronpedia", "circuit-tracer")
"Folders of files for other viewers."
RUN_FILES = (
    "manifest.json",  # first: a run with one is whole
    "verification.json",
    "stability.json",
    "graph.json",
    "graph.html",
    "ranking.json",
    "cards.json",
    "heads.json",
    "metric.safetensors",
    *FIGURES,
    *EXPORTS,
    VIEW,
)
ABLATIONS = "ablations"
EDITED = "edited"
"Where a run keeps what was found of graphs that a person edited."
RUN, GRAPH = "run/1", "feature-graph/1"
"Schemas of a manifest and of a graph."


def digest(*parts: Any) -> str:
    """16 hex digits that differ where any of `parts`, plain JSON values, does."""
    return sha256(json.dumps(parts, default=str, sort_keys=True).encode()).hexdigest()[:16]


def is_made_from(path: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether the JSON file `path` is there and says that it was made from the same."""
    return path.exists() and _read(path).get(MADE_FROM) == plain(made_from)


def check_record(
    path: Path, made_from: Mapping[str, Any], *, beside: Sequence[str] = (), force: bool
) -> None:
    """Raise `ValueError` where the JSON file `path` was not made from the same.

    So it does for files of the suffixes `beside` it, as `check_beside`.
    """
    if path.exists() and not force and not is_made_from(path, made_from):
        raise ValueError(f"{path} is there already, made from something else: {_choice()}")
    for suffix in beside:
        check_beside(path, suffix, force=force)


def check_beside(path: Path, suffix: str, *, force: bool) -> None:
    """Raise `ValueError` where what is written beside `path` would replace a file, or `path`."""
    beside = path.with_suffix(suffix)
    if beside == path:
        raise ValueError(f"{path} is to hold JSON: name it .json, a {suffix} is written beside it")
    if beside.exists() and not path.exists() and not force:
        raise ValueError(f"{beside} is there already: {_choice()}")


def check_absent(path: Path, *, force: bool) -> None:
    """Raise `ValueError` where there is a file, of which nothing says what it was made from."""
    if path.exists() and not force:
        raise ValueError(f"{path} is there already: {_choice()}")


def check_text(path: Path, text: str, *, force: bool) -> None:
    """Raise `ValueError` where the file `path` holds another text."""
    if path.exists() and not force and path.read_bytes() != text.encode():
        raise ValueError(f"{path} is there already and is not the same: {_choice()}")


def check_folder(folder: Path, files: Mapping[str, bytes], *, force: bool) -> None:
    """Raise `ValueError` where a folder holds anything else than these files, by their paths."""
    check_not_file(folder)
    if not folder.exists() or force:
        return
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    if any(files.get(name) != path.read_bytes() for name, path in there.items()):
        raise ValueError(f"{folder} is there already and holds something else: {_choice()}")


def check_page(path: Path, made_from: str, *, force: bool) -> None:
    """Raise `ValueError` where `path` is not a page that `signed` with the same."""
    if path.exists() and not force and _signature(made_from).encode() not in path.read_bytes():
        raise ValueError(f"{path} is there already, a page of something else: {_choice()}")


def signed(html: str, made_from: str) -> str:
    """A page that says, where nobody sees it, what it was made from."""
    return html + _signature(made_from)


def _signature(made_from: str) -> str:
    return f"<!-- made from {made_from} -->\n"


def check_run(folder: Path, made_from: Callable[[], Mapping[str, Any]], *, force: bool) -> None:
    """Raise `ValueError` where a run in `folder` would take the place of something else.

    An unfinished run may be replaced; so may a finished one `made_from` the same, as long as it
    was neither verified nor ablated since.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file: give a folder for the run")
    manifest = _read(folder / "manifest.json")
    graph = _read(folder / "graph.json")
    if manifest.get("schema", RUN) != RUN or graph.get("schema", GRAPH) != GRAPH:
        raise ValueError(f"{folder} holds something that is no run: choose another --out")
    if force:
        return
    lost = added_to(folder)
    if manifest and any(manifest.get(k) != v for k, v in plain(made_from()).items()):
        lost.insert(0, "a run made from something else")
    if lost:
        raise ValueError(f"{folder} holds {' and '.join(lost)}: {_choice()}")


def added_to(folder: Path) -> list[str]:
    """What a run folder holds besides its graph, as words: a verification, ablations."""
    found = ["a verification"] if (folder / "verification.json").exists() else []
    if (folder / "stability.json").exists():
        found.append("a check of its stability")
    if (folder / "result.json").exists():
        found.append("an ablation's result")
    if names := ablations_in(folder):
        found.append(f"{counted(len(names), 'ablation')} ({', '.join(names[:5])})")
    if edited := sorted(path.name for path in (folder / EDITED).glob("[!.]*")):
        told = counted(len(edited), "edited circuit")
        found.append(f"{told} ({', '.join(edited[:5])})")
    return found


def ablations_in(folder: Path) -> list[str]:
    """Names of the ablations of a run."""
    return sorted(path.name for path in (folder / ABLATIONS).glob("[!.]*"))


def plain(value: Any) -> Any:
    """`value` as it reads back from JSON."""
    return json.loads(json.dumps(value, default=str))


def _read(path: Path) -> Mapping[str, Any]:
    """A JSON record; empty where there is none, and of no known schema where it is no record."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    return found if isinstance(found, Mapping) else {"schema": "unknown"}


def _choice() -> str:
    return "choose another place for the new one, or replace it with --force"

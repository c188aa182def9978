"""Paths as a page for other people shows them: from where the page lies."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hooked_qwen import bundled
from hooked_qwen.load import BUNDLED

FAR = 3
"Folders up, at most, to what a path leads to from the page."
KEPT = 2
"Last parts that are kept of a path that leads elsewhere."
OURS = {bundled.PATH, bundled.DICTIONARIES}


def shown_path(path: str, base: Path) -> str:
    """`path` from the folder `base` on; `…/` and its end where it lies far from there.

    What is no absolute path stays as it is, a name on the hub too; what ships with the project is
    `bundled`.
    """
    place = Path(path)
    if not place.is_absolute():
        return path
    if place in OURS:
        return BUNDLED
    try:
        shown = Path(os.path.relpath(place, base))
    except ValueError:  # on another drive
        shown = place
    up = shown.parts.count(os.pardir)
    if not shown.is_absolute() and up <= FAR and up < len(base.parts) - 1:
        return shown.as_posix()
    return Path("…", *place.parts[1:][-KEPT:]).as_posix()


def without(text: str, paths: Mapping[str, str]) -> str:
    """A text with each of these paths as it is shown, longer ones first."""
    for path in sorted(paths, key=len, reverse=True):
        text = text.replace(path, paths[path])
    return text


def in_record(record: Any, change: Callable[[str], str]) -> Any:
    """A record of JSON whose texts are changed, names of fields aside."""
    if isinstance(record, str):
        return change(record)
    if isinstance(record, Mapping):
        return {name: in_record(part, change) for name, part in record.items()}
    if isinstance(record, list | tuple):
        return [in_record(part, change) for part in record]
    return record


def shown_argument(given: str, base: Path) -> str:
    """An argument of a command line, its path shown: `--out=/a/b` too."""
    option, equals, value = given.partition("=")
    if equals and option.startswith("-"):
        return f"{option}={shown_path(value, base)}"
    return shown_path(given, base)


def changes(paths: Mapping[str, str]) -> Callable[[str], str]:
    """`without` of these paths."""
    return partial(without, paths=dict(paths))

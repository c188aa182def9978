"""A file of weights that somebody saved in a way of their own: its tensors, and numbers by name."""

import math
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saes.formats.place import Entry, Place
from saes.formats.reading import read_any, read_config

VALUE = re.compile(r"(1/|sqrt\(d\)/|)([^()\s]+)")
CONFIGS = (".json", ".yaml", ".yml")


@dataclass(frozen=True)
class Checkpoint:
    """What one file holds."""

    path: Path
    leaves: Mapping[str, Tensor]
    "its tensors and numbers, those in groups as GROUP.NAME"
    entry: Entry

    def tensor(self, name: str, term: str) -> Tensor:
        """One of the tensors; raises `ValueError` listing those there are."""
        if name not in self.leaves:
            raise ValueError(f"{self.path} has no tensor {name!r} for {term}: {self.told()}")
        return self.leaves[name]

    def number(self, text: str, term: str, *, d: int) -> float:
        """A number that is written out, or `NAME`, `1/NAME`, `sqrt(d)/NAME` for one that is named.

        Raises `ValueError` where there is no such number.
        """
        if (plain := _plain(text)) is not None:
            return plain
        parts = VALUE.fullmatch(text)
        if parts is None:
            raise ValueError(
                f"{term} is {text!r}: expected a number, a name in the file, FILE.json:FIELD, or "
                "1/NAME or sqrt(d)/NAME of one"
            )
        value = self._named(parts[2], term)
        if parts[1] and value == 0:
            raise ValueError(f"{self.path} has 0 for {parts[2]}, which {term} divides by")
        factor = {"": value, "1/": 1 / (value or 1), "sqrt(d)/": math.sqrt(d) / (value or 1)}
        return factor[parts[1]]

    def whole_number(self, text: str, term: str) -> int:
        value = self.number(text, term, d=1)
        if value != int(value):
            raise ValueError(f"{self.path}: {term} is {value}, expected a whole number")
        return int(value)

    def numbers(self) -> list[str]:
        """The names of what holds a single number."""
        return [name for name, value in self.leaves.items() if value.numel() == 1]

    def told(self) -> str:
        """What the file holds, for people."""
        shown = [f"{name} {tuple(value.shape)}" for name, value in self.leaves.items()]
        more = f" and {len(shown) - 12} more" if len(shown) > 12 else ""
        return f"it holds {', '.join(shown[:12]) or 'no tensor'}{more}"

    def _named(self, name: str, term: str) -> float:
        file, colon, field = name.rpartition(":")
        value: Any = self._configured(file, field, term) if colon else self.tensor(name, term)
        if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
            value = value.item()
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise ValueError(f"{self.path}: {name} is no number, which {term} needs")
        return float(value)

    def _configured(self, file: str, field: str, term: str) -> Any:
        """A field of a configuration."""
        found = configuration(self.entry, file)
        if found is None:
            raise ValueError(
                f"there is no {file} beside {self.path} for {term}: expected a .json or .yaml file"
            )
        path = self.entry.place.fetch(found)
        value: Any = read_config(path).record
        for part in field.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ValueError(f"{path} has no field {field!r} for {term}")
            value = value[part]
        return value


def configuration(entry: Entry, file: str) -> str | None:
    """The configuration that a map calls `file`, beside the weights or at the root of the place."""
    beside = posixpath.join(posixpath.dirname(entry.files[0]), file)
    found = [name for name in (beside, file) if name in entry.place.names]
    return found[0] if found and file.endswith(CONFIGS) else None


def place_of_file(path: Path) -> Place:
    """A place that holds one file, and the configurations beside it."""
    names = [path.name, *(p.name for p in path.parent.iterdir() if p.suffix in CONFIGS)]
    return Place(
        label=str(path.resolve()),
        name=path.stem,
        names=tuple(sorted(set(names))),
        fetch=path.parent.joinpath,
    )


def checkpoint(entry: Entry, more: Mapping[str, str] | None = None) -> Checkpoint:
    """The first file of an entry, read, and `more` numbers as if they were in it.

    Raises `ValueError` where one of these is none.
    """
    path, added = entry.fetch()[0], {}
    for name, text in (more or {}).items():
        if (value := _plain(text)) is None:
            raise ValueError(f"{path}: the map has {text!r} for {name}, expected a number")
        added[name] = torch.tensor(value, dtype=torch.float64)
    return Checkpoint(path, read_any(path) | added, entry)


def _plain(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None

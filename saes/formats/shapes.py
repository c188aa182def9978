"""How large a dictionary is, known from its files' headers: no weight is read."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
from safetensors import safe_open

from hooked_qwen.notices import first_line
from hooked_qwen.sites import Site
from saes.formats import ours
from saes.formats.place import Entry
from saes.formats.reading import array_header

FLOAT32 = 4
"Bytes of a value once it is read: dictionaries compute in float32."


@dataclass(frozen=True, kw_only=True)
class DictionaryShape:
    """What a dictionary takes, before it is read."""

    name: str
    source: Site
    target: Site
    features: int
    k: int | None
    "features that are on at a token; None where its files do not say without their weights"
    bytes: int
    "of its weights once they are read"
    stored: int
    "of its weights' file"


def shape_of(entry: Entry, d_model: int) -> DictionaryShape:
    """The size of one dictionary for a model of width `d_model`.

    Raises `ValueError` naming the file where its header cannot be read, or where it is no
    dictionary of such a model.
    """
    weights = [path for path in entry.fetch() if path.suffix in READERS]
    path, shapes = weights[0], {k: v for one in weights for k, v in header(one).items()}
    matrices = [s for name, s in shapes.items() if len(s) > 1 and "skip" not in name.lower()]
    sites = max(len(entry.reads), len(entry.writes))
    widths = {axis for shape in matrices for axis in shape}
    if widths.isdisjoint({d_model, sites * d_model}):
        found = " and ".join(str(tuple(shape)) for shape in matrices) or "no matrix"
        raise ValueError(
            f"{path} holds {found}, but the model is {d_model} wide: it is another model's"
        )
    features = max(prod(shape) for shape in matrices) // (sites * d_model)
    return DictionaryShape(
        name=entry.node_name,
        source=entry.source,
        target=entry.target,
        features=features,
        k=_features_on(entry),
        bytes=FLOAT32 * _values(shapes, d_model, features),
        stored=sum(one.stat().st_size for one in weights),
    )


def header(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor in a file; raises `ValueError` naming a file that is damaged."""
    if path.suffix not in READERS:
        raise ValueError(f"{path} is none of {', '.join(READERS)}: its shapes cannot be read")
    try:
        return READERS[path.suffix](path)
    except Exception as error:  # damaged files fail in as many ways as there are parsers
        raise ValueError(f"{path} is not readable: {first_line(error)}") from None


def _safetensors(path: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(path, framework="pt") as file:
        names: list[str] = list(file.keys())
        return {name: tuple(file.get_slice(name).get_shape()) for name in names}


def _checkpoint(path: Path) -> dict[str, tuple[int, ...]]:
    # Mapped, so that what is not looked at is not read.
    found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return {name: tuple(value.shape) for name, value in found.items()}


def _archive(path: Path) -> dict[str, tuple[int, ...]]:
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as stream:
                shapes[member.filename.removesuffix(".npy")] = array_header(stream)[0]
    return shapes


READERS = {".safetensors": _safetensors, ".pt": _checkpoint, ".npz": _archive}


def _values(shapes: Mapping[str, tuple[int, ...]], d_model: int, features: int) -> int:
    """Values of the dictionary that is folded from these tensors.

    Both matrices, any skip, a bias on either side, and a threshold where some tensor holds one.
    """
    matrices = sum(prod(shape) for shape in shapes.values() if len(shape) > 1)
    gates = any("threshold" in name or name == "r_mag" for name in shapes)
    return matrices + d_model + features * (2 if gates else 1)


def _features_on(entry: Entry) -> int | None:
    path = entry.fetch()[0]
    if (path.parent / ours.RECORD).is_file():
        return ours.read_spec(path.parent).k
    named = re.findall(r"(?:L0|l0)_(\d{1,6})", str(path.absolute()))
    return int(named[-1]) or None if named else None

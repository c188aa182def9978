"""Files that may be damaged or hostile: read without running anything, or refused by name.

Every function raises `ValueError` that starts with the file's path. Nothing in a file can make
it allocate more than the file's own size suggests.
"""

import json
import math
import re
import reprlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from hooked_qwen.notices import first_line
from hooked_qwen.precision import HALF
from hooked_qwen.sites import Site
from hooked_qwen.tensor_files import aligned, read_tensors
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.formats.names import to_site

REQUIRED = object()
KINDS = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}
PYTORCH = (".pt", ".pth", ".bin")
WEIGHTS = (*PYTORCH, ".safetensors", ".npz")
EXPANSION = 100
"How many times larger than its file an archive's content may be; weights hardly compress."


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object."""
    return _record(path, "JSON", lambda: json.loads(path.read_text(encoding="utf-8")))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping of plain values."""
    return _record(path, "YAML", lambda: yaml.safe_load(path.read_text(encoding="utf-8")))


def _record(path: Path, language: str, read: Callable[[], Any]) -> dict[str, Any]:
    try:
        record = read()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except Exception as error:  # damaged files fail in as many ways as there are parsers
        raise ValueError(f"{path} is not {language}: {first_line(error)}") from None
    if not isinstance(record, dict):
        raise ValueError(f"{path} holds {reprlib.repr(record)}, expected an object with fields")
    return record


def field(
    record: Mapping[str, Any], path: Path, name: str, kind: type, default: Any = REQUIRED
) -> Any:
    """The value of a field, of the right type; `default` where it is absent or null."""
    value = record.get(name)
    if value is None:
        if default is REQUIRED:
            raise ValueError(f"{path} has no field {name!r}: expected {KINDS[kind]}")
        return default
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{path} has {reprlib.repr(value)} for {name}, expected {KINDS[kind]}")
    return value


@dataclass(frozen=True)
class Config:
    """The configuration beside weights; all that is wrong with it names its path."""

    path: Path
    record: dict[str, Any]

    def field(self, name: str, kind: type, default: Any = REQUIRED) -> Any:
        return field(self.record, self.path, name, kind, default)

    def site(self, name: str) -> Site:
        """The site that a field names, in whatever spelling."""
        return self.site_called(self.field(name, str))

    def site_called(self, text: str) -> Site:
        try:
            return to_site(text)
        except ValueError as error:
            raise ValueError(f"{self.path}: {error}") from None

    def check(self, **fields: Mapping[Any, str]) -> None:
        """Raise unless the arithmetic of each field's value is ours.

        Of a field all values that are known, with the reason where one is not ours, else ''; the
        first is what it means when the field is not there.
        """
        for name, options in fields.items():
            value = self.record.get(name, next(iter(options)))
            known = isinstance(value, str | bool | type(None)) and value in options
            if known and not options[value]:
                continue
            why = options[value] if known else "that is not known here"
            fine = ", ".join(repr(option) for option, reason in options.items() if not reason)
            raise ValueError(
                f"{self.path} has {reprlib.repr(value)} for {name}: {why}; what is read here is "
                f"{fine}"
            )


def read_config(path: Path) -> Config:
    """A configuration in JSON or YAML."""
    return Config(path, (read_json if path.suffix == ".json" else read_yaml)(path))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, of the kind that its suffix says; no code in it is run."""
    return _tensors(path, *_reader(path))


def read_any(path: Path) -> dict[str, Tensor]:
    """The same, and numbers as tensors without axes.

    Those in groups of a PyTorch file are called by the path to them, such as `state.W_enc`.
    """
    kind, read = _reader(path)
    if path.suffix in PYTORCH:
        return _tensors(path, kind, lambda: dict(_leaves(read())))
    return _tensors(path, kind, read)


def _reader(path: Path) -> tuple[str, Callable[[], Any]]:
    if path.suffix in PYTORCH:
        return "PyTorch", lambda: _checkpoint(path)
    if path.suffix not in WEIGHTS:
        raise ValueError(f"{path} is no file of weights: expected one of {', '.join(WEIGHTS)}")
    if path.suffix == ".npz":
        return "NumPy", lambda: _arrays(path)
    return "safetensors", lambda: read_tensors(path)


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _leaves(part, f"{name}.{key}" if name else str(key))
    elif isinstance(value, Tensor):
        yield name, value.detach()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, torch.tensor(value, dtype=torch.float64)


def _tensors(path: Path, kind: str, read: Callable[[], Any]) -> dict[str, Tensor]:
    try:
        tensors = read()
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except Exception as error:  # damaged files fail in as many ways as there are parsers
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(
                f"{path} holds Python objects ({named[1]}) that only running code could read: "
                "load it where it was made and save its tensors alone, as safetensors"
            ) from None
        raise ValueError(f"{path} is not a readable {kind} file: {first_line(error)}") from None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in tensors.items()
    ):
        raise ValueError(f"{path} holds {type(tensors).__name__}, expected tensors by name")
    size = EXPANSION * path.stat().st_size
    for name, value in tensors.items():
        if value.layout != torch.strided or value.numel() * value.element_size() > size:
            raise ValueError(f"{path}: {name} is not a plain tensor that the file could hold")
    return {name: aligned(value) for name, value in tensors.items()}


def _checkpoint(path: Path) -> Any:
    with path.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError("no zip archive, which is what PyTorch writes since version 1.6")
    return torch.load(path, map_location="cpu", weights_only=True)


def _arrays(path: Path) -> dict[str, Tensor]:
    # NumPy allocates what a header claims before it looks whether the data is there.
    arrays: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        if sum(m.file_size for m in archive.infolist()) > EXPANSION * path.stat().st_size:
            raise ValueError(f"its content is over {EXPANSION} times its size")
        for member in archive.infolist():
            with archive.open(member) as stream:
                shape, fortran, dtype = array_header(stream)
                size = math.prod(shape) * dtype.itemsize
                if dtype.kind not in "fi" or size != member.file_size - stream.tell():
                    raise ValueError(f"{member.filename} claims {shape} of {dtype}")
                flat = np.frombuffer(stream.read(), dtype)
            array = flat.reshape(shape, order="F" if fortran else "C")
            arrays[member.filename.removesuffix(".npy")] = torch.from_numpy(
                array.astype(np.float32 if dtype.kind == "f" else np.int64)
            )
    return arrays


def array_header(stream: Any) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array of NumPy's, of which `stream` is at the start."""
    version = np.lib.format.read_magic(stream)
    read: Any = np.lib.format.read_array_header_2_0
    if version == (1, 0):
        read = np.lib.format.read_array_header_1_0
    return read(stream)


def check_tensors(
    path: Path,
    tensors: Mapping[str, Tensor],
    required: Mapping[str, str],
    optional: Mapping[str, str] | None = None,
) -> None:
    """Raise unless the tensors are those named, their axes agreeing.

    Each tensor's shape is written with a letter for each axis, such as 'md'; a letter has one
    size throughout: m features, d the site's width (s and t where source and target may differ).
    """
    named = {**required, **(optional or {})}
    if missing := required.keys() - tensors.keys():
        raise ValueError(f"{path} lacks the tensors {', '.join(sorted(missing))}")
    if extra := tensors.keys() - named.keys():
        raise ValueError(
            f"{path} has tensors that are not read here: {', '.join(sorted(extra)[:3])}; "
            f"expected {', '.join(named)}"
        )
    check_real(path, tensors)
    sizes: dict[str, int] = {}
    for name, axes in named.items():
        if (value := tensors.get(name)) is None:
            continue
        if value.dim() == len(axes):
            sizes = dict(zip(axes, value.shape, strict=True)) | sizes
        expected = tuple(sizes.get(axis, axis) for axis in axes)
        if tuple(value.shape) != expected:
            shape = ", ".join(map(str, expected))
            raise ValueError(f"{path}: {name} has shape {tuple(value.shape)}, expected ({shape})")
        if not torch.isfinite(value).all():
            raise ValueError(f"{path}: {name} holds numbers that are not finite")


def check_real(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise for a tensor of anything but real numbers."""
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise ValueError(f"{path}: {name} is of type {value.dtype}, expected real numbers")


def assemble(path: Path, weights: Mapping[str, Tensor], **spec: Any) -> SparseDictionary:
    """The dictionary of folded `weights`, in half precision where they are, else in float32.

    `path` is named when they are none.
    """
    plain = {
        name: (value if value.dtype in HALF else value.float()).contiguous()
        for name, value in weights.items()
    }
    try:
        return SparseDictionary(DictionarySpec(**spec), plain)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None

"""Our own layout: a folder per dictionary, a suite is a folder of them.

    SUITE/suite.json                        {"schema": "dictionary-suite/1", "dictionaries": [...]}
    SUITE/mlp_out.3/dictionary.json         {"schema": "sparse-dictionary/1", "source": ..., ...}
    SUITE/mlp_out.3/dictionary.safetensors  W_enc [m, d_source], W_dec [m, d_target], b_enc, b_dec,
                                            optional threshold [m], W_skip [d_target, d_source]

Everything is folded: the tensors take and give raw activations (see `saes.dictionary`).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from hooked_qwen.files import build_folder_atomically, write_atomically
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary

DICTIONARY_SCHEMA = "sparse-dictionary/1"
SUITE_SCHEMA = "dictionary-suite/1"
RECORD = "dictionary.json"
TENSORS = "dictionary.safetensors"
SUITE = "suite.json"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is recorded beside a dictionary's weights."""

    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)


def save_dictionary(
    dictionary: SparseDictionary,
    folder: Path,
    *,
    card: Card,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Write one dictionary to `folder`, whole or not at all."""
    spec = dictionary.spec
    record = {
        "schema": DICTIONARY_SCHEMA,
        "architecture": spec.architecture,
        "k": spec.k,
        **({"signed": True} if spec.signed else {}),
        "source": str(spec.source),
        "target": str(spec.target),
        "model": dict(card.model),
        "training": dict(card.training),
        "metrics": dict(card.metrics),
    }
    tensors = {k: v.to(dtype).clone() for k, v in dictionary.state_dict().items()}
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"{name} of {spec.name} does not fit into {dtype}")

    def build(partial: Path) -> None:
        save_file(tensors, partial / TENSORS)
        text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
        (partial / RECORD).write_text(text + "\n", encoding="utf-8")

    build_folder_atomically(folder, build)


def load_dictionary(folder: Path) -> SparseDictionary:
    """Read one dictionary in float32.

    Raises `ValueError` naming the file and what was expected when anything is off.
    """
    spec, path = read_spec(folder), folder / TENSORS
    try:
        tensors = load_file(path)
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise ValueError(f"{path}: {name} is of type {value.dtype}, expected real numbers")
    try:
        return SparseDictionary(spec, {name: value.float() for name, value in tensors.items()})
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_spec(folder: Path) -> DictionarySpec:
    """What the dictionary in `folder` is; raises `ValueError` naming the file and the field."""
    record, path = read_record(folder), folder / RECORD
    for name in ("source", "target", "architecture"):
        if name not in record:
            raise ValueError(f"{path} has no field {name!r}")
        if not isinstance(record.get(name), str):
            raise ValueError(f"{path} has {record.get(name)!r} for {name}, expected a text")
    k = record.get("k")
    if k is not None and type(k) is not int:
        raise ValueError(f"{path} has {k!r} for k, expected a whole number or null")
    signed = record.get("signed", False)
    if not isinstance(signed, bool):
        raise ValueError(f"{path} has {signed!r} for signed, expected true or false")
    try:
        return DictionarySpec(
            source=Site.parse(record["source"]),
            target=Site.parse(record["target"]),
            architecture=record["architecture"],
            k=k,
            signed=signed,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_record(folder: Path) -> dict[str, Any]:
    """The JSON beside a dictionary's weights; raises `ValueError` when it is not one."""
    return _read_json(folder / RECORD, DICTIONARY_SCHEMA)


def save_suite_index(folder: Path, names: list[str]) -> None:
    """Write the list of a suite's dictionaries; folders that are not listed do not belong to it."""
    record = {"schema": SUITE_SCHEMA, "dictionaries": sorted(names)}
    text = json.dumps(record, indent=1) + "\n"
    write_atomically(folder / SUITE, lambda partial: partial.write_text(text, encoding="utf-8"))


def suite_folders(folder: Path) -> list[Path]:
    """The folders of a suite's dictionaries; a folder that is itself a dictionary counts as one.

    Raises `ValueError` when `folder` is neither.
    """
    if (folder / RECORD).exists():
        return [folder]
    if not (folder / SUITE).exists():
        raise ValueError(
            f"{folder} holds no dictionaries: expected a {SUITE} (a suite) or a {RECORD} "
            "(one dictionary)"
        )
    names = _read_json(folder / SUITE, SUITE_SCHEMA).get("dictionaries")
    if not isinstance(names, list) or not all(_is_plain_name(name) for name in names):
        raise ValueError(f"{folder / SUITE}: expected a list of folder names in 'dictionaries'")
    return [folder / name for name in names]


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def _read_json(path: Path, schema: str) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing") from None
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    found = record.get("schema") if isinstance(record, dict) else None
    if found != schema:
        raise ValueError(f"{path} has schema {found!r}, expected {schema!r}")
    return record

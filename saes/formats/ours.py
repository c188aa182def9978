"""Our own layout: a folder per dictionary, a suite is a folder of them.

    SUITE/suite.json                        {"schema": "dictionary-suite/1", "dictionaries": [...]}
    SUITE/mlp_out.3/dictionary.json         {"schema": "sparse-dictionary/1", "source": ..., ...}
    SUITE/mlp_out.3/dictionary.safetensors  W_enc [m, d_source], W_dec [m, d_target], b_enc, b_dec,
                                            optional threshold [m], W_skip [d_target, d_source]

    SUITE/README.md                         its card: what is in it and how good it is

Everything is folded: the tensors take and give raw activations (see `saes.dictionary`).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from hooked_qwen.files import build_folder_atomically, write_text_atomically
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.formats.card import card_text
from saes.formats.layout import FileLayout
from saes.formats.place import Entry, Place, inside
from saes.formats.reading import Config, assemble, check_real, read_config, read_weights

DICTIONARY_SCHEMA = "sparse-dictionary/1"
SUITE_SCHEMA = "dictionary-suite/1"
RECORD = "dictionary.json"
TENSORS = "dictionary.safetensors"
SUITE = "suite.json"
CARD = "README.md"
CHECKPOINT = "checkpoint.safetensors"
"In place of all these while a training is not finished."


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is recorded beside a dictionary's weights."""

    model: Mapping[str, Any] = dataclass_field(default_factory=dict)
    training: Mapping[str, Any] = dataclass_field(default_factory=dict)
    metrics: Mapping[str, Any] = dataclass_field(default_factory=dict)


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
        **_further_sites(spec),
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


def _further_sites(spec: DictionarySpec) -> dict[str, Any]:
    """What is recorded of a dictionary with more than one site on a side."""
    if not (spec.also_reads or spec.also_writes or spec.called):
        return {}
    return {
        "also_reads": [str(site) for site in spec.also_reads],
        "also_writes": [str(site) for site in spec.also_writes],
        "called": spec.called,
    }


def load_dictionary(folder: Path) -> SparseDictionary:
    """Read one dictionary in float32.

    Raises `ValueError` naming the file and what was expected when anything is off.
    """
    return _stored(folder).widened()


def _stored(folder: Path) -> SparseDictionary:
    spec, path = read_spec(folder), folder / TENSORS
    tensors = read_weights(path)
    check_real(path, tensors)
    return assemble(path, tensors, **vars(spec))


def read_spec(folder: Path) -> DictionarySpec:
    """What the dictionary in `folder` is; raises `ValueError` naming the file and the field."""
    config = Config(folder / RECORD, read_record(folder))
    ends = [config.field(name, str) for name in ("source", "target")]
    further = [config.field(name, list, []) for name in ("also_reads", "also_writes")]
    told = {
        "architecture": config.field("architecture", str),
        "k": config.field("k", int, None),
        "signed": config.field("signed", bool, False),
        "called": config.field("called", str, ""),
    }
    try:
        source, target = map(Site.parse, ends)
        reads, writes = (tuple(Site.parse(str(site)) for site in sites) for sites in further)
        return DictionarySpec(
            source=source, target=target, also_reads=reads, also_writes=writes, **told
        )
    except ValueError as error:
        raise ValueError(f"{config.path}: {error}") from None


def read_record(folder: Path) -> dict[str, Any]:
    """The JSON beside a dictionary's weights; raises `ValueError` when it is not one."""
    return _read(folder / RECORD, DICTIONARY_SCHEMA)


def save_suite_index(folder: Path, names: list[str]) -> None:
    """Write the list of a suite's dictionaries and its card.

    Folders that are not listed do not belong to the suite; raises `ValueError` for a name in the
    list that is no dictionary.
    """
    record = {"schema": SUITE_SCHEMA, "dictionaries": sorted(names)}
    texts = {
        SUITE: json.dumps(record, indent=1) + "\n",
        CARD: card_text({name: read_record(folder / name) for name in sorted(names)}),
    }
    for name, text in texts.items():
        write_text_atomically(folder / name, text)


def suite_folders(folder: Path) -> list[Path]:
    """The folders of a suite's dictionaries; a folder that is itself a dictionary counts as one.

    Raises `ValueError` when `folder` is neither.
    """
    if (folder / RECORD).exists():
        return [folder]
    if not (folder / SUITE).exists():
        check_finished(str(folder), [p.name for p in folder.glob("*")])
        raise ValueError(
            f"{folder} holds no dictionaries: expected a {SUITE} (a suite) or a {RECORD} "
            "(one dictionary)"
        )
    return [folder / name for name in _listed(folder / SUITE)]


def check_finished(label: str, names: Iterable[str]) -> None:
    """Raise `ValueError` where the files called `names` are those of an unfinished training."""
    if CHECKPOINT in names:
        raise ValueError(
            f"{label} holds a training that is not finished: the same `circuits train` command "
            "with --resume goes on with it"
        )


def matches(place: Place) -> bool:
    return RECORD in place.names or SUITE in place.names


def find(place: Place) -> list[Entry]:
    """The dictionaries of a suite, or the one that the place itself is."""
    folders = [""] if RECORD in place.names else _listed(place.fetch(SUITE))
    return [_entry(place, folder) for folder in folders]


def _entry(place: Place, folder: str) -> Entry:
    spec = read_spec(place.fetch(inside(folder, RECORD)).parent)
    return Entry(
        source=spec.source,
        target=spec.target,
        name=place.name_of(folder),
        place=place,
        files=(inside(folder, TENSORS), inside(folder, RECORD)),
        also_reads=spec.also_reads,
        also_writes=spec.also_writes,
        called=spec.called,
    )


def load(entry: Entry) -> SparseDictionary:
    path, _ = entry.fetch()
    return _stored(path.parent)


def save(dictionaries: Iterable[SparseDictionary], folder: Path) -> None:
    """Write dictionaries that were not trained here: nothing is recorded beside the weights."""
    names: list[str] = []
    for one in dictionaries:
        if one.spec.name in names:
            raise ValueError(
                f"two dictionaries are {one.spec.name}: convert the folder of one of them"
            )
        save_dictionary(one, folder / one.spec.name, card=Card())
        names.append(one.spec.name)
    save_suite_index(folder, names)


def _listed(path: Path) -> list[str]:
    names = _read(path, SUITE_SCHEMA).get("dictionaries")
    if not isinstance(names, list) or not all(_is_plain_name(name) for name in names):
        raise ValueError(f"{path}: expected a list of folder names in 'dictionaries'")
    return names


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def _read(path: Path, schema: str) -> dict[str, Any]:
    record = read_config(path).record
    if record.get("schema") != schema:
        raise ValueError(f"{path} has schema {record.get('schema')!r}, expected {schema!r}")
    return record


LAYOUT = FileLayout(name="ours", matches=matches, find=find, load=load, save=save)

"""What a published layout is to the rest: how it is recognised, read and, for some, written."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.patterns import pattern, site_at
from saes.formats.place import Entry, Place, entry_of, inside
from saes.formats.reading import Config, read_config, read_weights
from saes.formats.terms import Terms

Save = Callable[[Iterable[SparseDictionary], Path], None]


@dataclass(frozen=True, kw_only=True)
class FileLayout:
    """One way of laying out dictionaries in files."""

    name: str
    matches: Callable[[Place], bool]
    "whether a place looks like it, judged by the names of its files alone"
    find: Callable[[Place], list[Entry]]
    "the dictionaries in a place that matches, from their configurations, without their weights"
    load: Callable[[Entry], SparseDictionary]
    "one of them, folded so that it takes and gives raw activations; what is stored in half "
    "precision and not changed by that is left so"
    save: Save | None = None
    "writes dictionaries into an empty folder; None where the layout is only read"


def layout_of_folders(
    name: str,
    *,
    weights: str,
    config: str,
    sites: Callable[[Config, str], tuple[Site, Site]],
    terms: Callable[[Config, dict[str, Tensor], Path], Terms],
    save: Save | None = None,
    name_of: Callable[[Place, str], str] = Place.name_of,
) -> FileLayout:
    """A layout with a folder for each dictionary, which holds its weights and its configuration.

    `sites` tells source and target from the configuration and the dictionary's name, `terms` what
    the tensors in the file of weights mean; it takes out of them what is none of these.
    """

    def entry(place: Place, folder: str) -> Entry:
        own_name = name_of(place, folder)
        files = inside(folder, weights), inside(folder, config)
        ends = sites(read_config(place.fetch(files[1])), own_name)
        return entry_of(place, ends, *files, name=own_name)

    def load(entry: Entry) -> SparseDictionary:
        path, about = entry.fetch()
        told, tensors = read_config(about), read_weights(path)
        meant = terms(told, tensors, path)
        read = meant.read(path, tensors, entry)
        for tensor, axes in meant.axes.items():
            shape = tuple(tensors[tensor].shape)
            said = tuple(meant.sizes.get(axis, n) for axis, n in zip(axes, shape, strict=True))
            if said != shape:
                raise ValueError(f"{path}: {tensor} is {shape}, {config} says {said}")
        return read

    return FileLayout(
        name=name,
        matches=lambda place: bool(place.folders_with(weights, config)),
        find=lambda place: [entry(place, f) for f in place.folders_with(weights, config)],
        load=load,
        save=save,
    )


def layout_of_files(
    name: str,
    *,
    files: str,
    site: Callable[[Place], str],
    terms: Callable[[Path], Terms],
) -> FileLayout:
    """A layout with a file for each autoencoder, called `files` as a map would say it.

    `site` tells from the place what they are of, `terms` from a file's path what is in it.
    """
    named = pattern(files)
    is_folder = "{layer}" not in files.rpartition("/")[2]

    def find(place: Place) -> list[Entry]:
        of, entries = site(place), []
        for match in filter(None, map(named.fullmatch, place.names)):
            name = match[0].rpartition("/")[0] if is_folder else match[0]
            at = site_at(of, match)
            entries.append(entry_of(place, (at, at), match[0], name=name))
        return entries

    def load(entry: Entry) -> SparseDictionary:
        (path,) = entry.fetch()
        return terms(path).read(path, read_weights(path), entry)

    return FileLayout(
        name=name,
        matches=lambda place: any(map(named.fullmatch, place.names)),
        find=find,
        load=load,
    )


def save_folder(
    folder: Path, weights: str, tensors: dict[str, Tensor], config: str, record: dict[str, Any]
) -> None:
    """Write a dictionary's folder, its configuration in JSON."""
    save_weights(tensors, folder / weights)
    (folder / config).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def save_weights(tensors: dict[str, Tensor], path: Path) -> None:
    """Write tensors in float32; raises `ValueError` for a second dictionary in the same place."""
    if path.exists():
        raise ValueError(
            f"two dictionaries would be written to {path.name} in {path.parent.name}: "
            "convert only the SAEs or only the transcoders"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {k: v.detach().to("cpu", torch.float32) for k, v in tensors.items()}
    # The format forbids tensors that share memory.
    save_file({k: v.clone(memory_format=torch.contiguous_format) for k, v in plain.items()}, path)

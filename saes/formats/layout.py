"""What a published layout is to the rest: how it is recognised, read and, for some, written."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats.place import Entry, Place, inside

Save = Callable[[Iterable[SparseDictionary], Path], None]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One way of laying out dictionaries in files."""

    name: str
    matches: Callable[[Place], bool]
    "whether a place looks like it, judged by the names of its files alone"
    find: Callable[[Place], list[Entry]]
    "the dictionaries in a place that matches, from their configurations, without their weights"
    load: Callable[[Entry], SparseDictionary]
    "one of them, folded so that it takes and gives raw activations"
    save: Save | None = None
    "writes dictionaries into an empty folder; None where the layout is only read"


def layout_of_folders(
    name: str,
    *,
    weights: str,
    config: str,
    sites: Callable[[Path, str], tuple[Site, Site]],
    load: Callable[[Entry], SparseDictionary],
    save: Save | None = None,
    name_of: Callable[[Place, str], str] = Place.name_of,
) -> Layout:
    """A layout with a folder for each dictionary, which holds its weights and its configuration.

    `sites` reads source and target from the configuration's path and the dictionary's name.
    """

    def entry(place: Place, folder: str) -> Entry:
        own_name = name_of(place, folder)
        source, target = sites(place.fetch(inside(folder, config)), own_name)
        files = (inside(folder, weights), inside(folder, config))
        return Entry(source=source, target=target, name=own_name, place=place, files=files)

    return Layout(
        name=name,
        matches=lambda place: bool(place.folders_with(weights, config)),
        find=lambda place: [entry(place, f) for f in place.folders_with(weights, config)],
        load=load,
        save=save,
    )


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

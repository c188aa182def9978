"""A suite: the dictionaries that a graph is made of, one for each target site."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from hooked_qwen import bundled
from hooked_qwen.files import content_hash
from hooked_qwen.load import BUNDLED
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.formats import ours

MlpChoice = Literal["sae", "transcoder"]


class Suite(Mapping[Site, SparseDictionary]):
    """Dictionaries by target site, in the order of the forward pass."""

    def __init__(
        self, dictionaries: Mapping[Site, SparseDictionary], folders: Mapping[Site, Path]
    ) -> None:
        self._dictionaries = dict(sorted(dictionaries.items()))
        self._folders = dict(folders)

    def __getitem__(self, site: Site) -> SparseDictionary:
        return self._dictionaries[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self._dictionaries)

    def __len__(self) -> int:
        return len(self._dictionaries)

    @property
    def sources(self) -> list[Site]:
        """Every site that some dictionary reads, in order."""
        return sorted({d.source for d in self.values()})

    def describe(self) -> dict[str, dict[str, str]]:
        """For each target site, where its dictionary reads and the hash of its files."""
        return {
            str(site): {
                "source": str(dictionary.source),
                "folder": self._folders[site].name,
                "hash": content_hash(self._folders[site]),
            }
            for site, dictionary in self.items()
            if site in self._folders
        }


def folder_of(source: str | Path) -> Path:
    """The folder that `--dictionaries` names; raises `ValueError` when there is none."""
    path = bundled.DICTIONARIES if str(source) == BUNDLED else Path(source).expanduser()
    if not path.is_dir():
        raise ValueError(f"there are no dictionaries at {source}: no such folder")
    return path


def load_suite(source: str | Path, *, mlp: MlpChoice = "sae") -> Suite:
    """Load a suite from a folder or the bundled one.

    Where an SAE and a transcoder both write `mlp_out.L`, `mlp` picks; a site with only one of
    them keeps that one.
    """
    chosen: dict[Site, SparseDictionary] = {}
    folders: dict[Site, Path] = {}
    for folder in ours.suite_folders(folder_of(source)):
        spec = ours.read_spec(folder)
        is_preferred = (spec.source != spec.target) == (mlp == "transcoder")
        if spec.target not in chosen or is_preferred:
            chosen[spec.target] = ours.load_dictionary(folder)
            folders[spec.target] = folder
    return Suite(chosen, folders)

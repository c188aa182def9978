"""Dictionaries from one layout to another."""

from collections.abc import Iterator
from pathlib import Path

from hooked_qwen.files import build_folder_atomically, check_new_folder
from saes.dictionary import SparseDictionary
from saes.formats import ours
from saes.formats.place import Entry
from saes.formats.table import WRITTEN
from saes.suite import MlpChoice, find


def convert(source: str | Path, out: Path, to: str, *, only: MlpChoice | None = None) -> list[str]:
    """Read the dictionaries at `source`, write them to the new folder `out` in the layout `to`.

    `source` is what `load_suite` takes; `only` leaves out the transcoders or the SAEs. Returns
    the names of what was read, in order; one dictionary is in memory at a time, and `out`
    appears only when everything is in it.

    Raises `ValueError` for a layout that is not written, one that cannot hold a dictionary
    exactly, an `out` that is there already, and when nothing is left to write.
    """
    if to not in WRITTEN:
        raise ValueError(f"no layout {to!r} is written: expected one of {', '.join(WRITTEN)}")
    check_new_folder(out)
    found = find(source)
    entries = [e for e in found.entries if only is None or _kind(e) == only]
    if not entries:
        raise ValueError(f"{found.place.label} holds no {only or 'dictionary'}")
    names: list[str] = []

    def dictionaries() -> Iterator[SparseDictionary]:
        for entry in entries:
            _check_sites(entry, to)
            names.append(entry.name)
            yield found.load(entry)

    build_folder_atomically(out, lambda partial: WRITTEN[to](dictionaries(), partial))
    return names


def _check_sites(entry: Entry, to: str) -> None:
    if to != ours.LAYOUT.name and (entry.also_reads or entry.also_writes):
        many = entry.writes if entry.also_writes else entry.reads
        raise ValueError(
            f"{entry.name} has {len(many)} sites on one side, from {many[0]} to {many[-1]}: only "
            f"our own layout is written with more than one, not {to}"
        )


def _kind(entry: Entry) -> MlpChoice:
    return "sae" if entry.source == entry.target else "transcoder"

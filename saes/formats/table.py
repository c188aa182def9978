"""The layouts that are known, and finding out which one a place has."""

from dataclasses import dataclass

from saes.dictionary import SparseDictionary
from saes.formats import (
    circuit_tracer,
    dictionary_learning,
    dunefsky,
    openmoss,
    ours,
    saelens,
    scopes,
    sparsify,
)
from saes.formats.layout import FileLayout
from saes.formats.place import Entry, Place

# In this order: the first that matches is taken, so what matches least comes first.
LAYOUTS: tuple[FileLayout, ...] = (
    ours.LAYOUT,
    scopes.QWEN_SCOPE,
    scopes.GEMMA_SCOPE,
    scopes.GEMMA_SCOPE_2,
    saelens.LAYOUT,
    sparsify.LAYOUT,
    dictionary_learning.LAYOUT,
    openmoss.LAYOUT,
    circuit_tracer.LAYOUT,
    dunefsky.LAYOUT,
)
WRITTEN = {layout.name: layout.save for layout in LAYOUTS if layout.save}


@dataclass(frozen=True)
class FoundDictionaries:
    """What a place holds: a layout, and the dictionaries in it, none of them read yet."""

    layout: FileLayout
    place: Place
    entries: tuple[Entry, ...]

    def load(self, entry: Entry) -> SparseDictionary:
        """One of the dictionaries, in float32; `ValueError` names the file that is wrong."""
        return self.stored(entry).widened()

    def stored(self, entry: Entry) -> SparseDictionary:
        """The same, what the file has in half precision left as it is."""
        return self.layout.load(entry)


def recognise(place: Place) -> FoundDictionaries:
    """The layout of `place` and the dictionaries in it.

    Raises `ValueError` when no layout matches, or a configuration is not as published.
    """
    for layout in LAYOUTS:
        if layout.matches(place):
            return FoundDictionaries(layout, place, tuple(layout.find(place)))
    ours.check_finished(place.label, place.names)
    published = ", ".join(layout.name for layout in LAYOUTS[1:-1])
    raise ValueError(
        f"{place.label} holds no dictionaries: expected a {ours.SUITE} (a suite), a {ours.RECORD} "
        f"(one dictionary), or files as published by {published}"
    )

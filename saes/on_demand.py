"""Dictionaries of a suite in an order, one after another: each is read when it is asked for."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from transformer_lens.model_bridge import TransformerBridge

from saes.dictionary import SparseDictionary, fitted
from saes.formats.finding import find
from saes.formats.place import Entry
from saes.suite import Suite

T = TypeVar("T")
if TYPE_CHECKING:
    InTurn = Sequence[SparseDictionary]
else:
    # beartype checks the values of a Sequence, which would load them.
    InTurn = Sequence


class OnDemand(InTurn):
    """A suite's dictionaries in an order, each read when it is asked for.

    Whoever goes through them holds one, and the suite what fits into its memory.
    """

    def __init__(self, suite: Suite, names: Sequence[str] | None = None) -> None:
        self.suite = suite
        self.names = list(suite) if names is None else list(names)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return OnDemand(self.suite, self.names[at])
        return self.suite[self.names[at]]

    def fitting(self, model: TransformerBridge) -> "OnDemand":
        """The same as the model needs them."""
        return OnDemand(self.suite.fitting(model), self.names)

    def of(self, entries: Iterable[Entry]) -> "OnDemand":
        """Those in some files, in the order of these."""
        by_files = {self.suite.files[name].files: name for name in self.names}
        return OnDemand(self.suite, [by_files[entry.files] for entry in entries])


def each(dictionaries: InTurn, say: Callable[[SparseDictionary], T]) -> list[T]:
    """What `say` says of each of the dictionaries.

    A loop over those that are read on demand would hold one while the next is read.
    """
    return [say(dictionaries[i]) for i in range(len(dictionaries))]


def fitting(dictionaries: InTurn, model: TransformerBridge) -> InTurn:
    """The dictionaries as the model needs them; those that are read on demand stay so."""
    if isinstance(dictionaries, OnDemand):
        return dictionaries.fitting(model)
    return [fitted(dictionary, model) for dictionary in dictionaries]


def load_all(source: str | Path, memory: float | None = None) -> OnDemand:
    """Every dictionary at `source`, of a site both where there are two, in the order of its files.

    Weights are read when they are asked for, and kept up to `memory` GB.

    Raises `ValueError` where two would have one name, such as two widths for one site.
    """
    found = find(source)
    entries: dict[str, Entry] = {}
    for entry in found.entries:
        name = entry.both_ends
        if name in entries:
            raise ValueError(
                f"{found.place.label} has several dictionaries of {name}: "
                f"name the folder of one of them, such as {entries[name].name}, {entry.name}"
            )
        entries[name] = entry
    return OnDemand(Suite({}, entries, found, memory), list(entries))

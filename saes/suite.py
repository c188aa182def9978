"""A suite: the dictionaries that a graph is made of, by name."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.moved import moved
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site, spans
from saes.dictionary import SparseDictionary, fitted, side_by_side
from saes.formats import ours
from saes.formats.finding import find, hash_of, notify_of_another_model, pinned
from saes.formats.place import Entry, hashes
from saes.formats.shapes import shape_of
from saes.formats.table import FoundDictionaries
from saes.tiers import OnDevice, OnHost

__all__ = ["MlpChoice", "Suite", "find", "hash_of", "load_suite", "pinned"]

MlpChoice = Literal["sae", "transcoder"]
ReadDictionary = Callable[[str], SparseDictionary]
"The dictionary of a name."
if TYPE_CHECKING:
    Dictionaries = Mapping[str, SparseDictionary]
else:
    # beartype checks the values of a Mapping, which would load every dictionary.
    Dictionaries = Mapping


class Suite(Dictionaries):
    """Dictionaries by name, in the order in which the forward pass first writes them.

    A dictionary is called as the site that it writes; one that writes several has a name of its
    own (`saes.dictionary.DictionarySpec.called`). Those that were found in files are read when
    they are first asked for, and then kept, up to `memory` GB: beyond that the one that was not
    asked for the longest is let go, and fetched again (`saes.tiers`).
    """

    def __init__(
        self,
        dictionaries: Mapping[Any, SparseDictionary],
        entries: Mapping[Any, Entry],
        found: FoundDictionaries | None = None,
        memory: float | None = None,
    ) -> None:
        self._dictionaries = {d.name: d for d in dictionaries.values()}
        self._entries = {str(key): entry for key, entry in sorted(entries.items())}
        self._found = found
        self._on_host = None if found is None else OnHost(found.stored)
        self._model: TransformerBridge | None = None
        self._make: Callable[[str, ReadDictionary], SparseDictionary] | None = None
        self._derived_reads: dict[str, tuple[Site, ...]] = {}
        self._ready = OnDevice(memory)
        self._names = self._in_order()

    def _in_order(self) -> list[str]:
        names = {*self._dictionaries, *self._entries}
        return sorted(names, key=lambda name: (min(self.writes_of(name)), name))

    def __repr__(self) -> str:
        return f"Suite: {self.summary()}"

    def __getitem__(self, name: Site | str) -> SparseDictionary:
        """A dictionary by its name, 'resid_post.1', or by the one site that it writes.

        Raises `KeyError` listing those there are.
        """
        name = str(name)
        if name not in self:
            there = ", ".join(self._names) or "none"
            raise KeyError(f"no dictionary writes {name}; those that are there write {there}")
        return self._ready.get(name, self._made_ready)

    def _made_ready(self, name: str) -> SparseDictionary:
        return self._fitting(name) if self._make is None else self._make(name, self._fitting)

    def _fitting(self, name: str) -> SparseDictionary:
        found = self._dictionaries.get(name)
        if found is None:
            found = self._from_files(name)
        return found if self._model is None else fitted(found, self._model)

    def _from_files(self, name: str) -> SparseDictionary:
        """One in the precision it computes in or, for another device than the CPU, as stored."""
        assert self._on_host, "a suite with entries says where they were found"
        if self._model is not None and device_of(self._model).type != "cpu":
            return self._on_host.get(name, self._entries[name])
        found = self._on_host.read(self._entries[name]).widened()
        if self._ready.memory is None:
            self._dictionaries[name] = found
        return found

    def __contains__(self, name: object) -> bool:
        # Mapping's own would read the dictionary.
        return str(name) in self._dictionaries or str(name) in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def fitting(self, model: TransformerBridge) -> "Suite":
        """The same suite, its dictionaries as `fitted` makes them: in precision, on the device."""
        if self._model is model:
            return self
        # What one of the two reads from its files is kept for both.
        fitting = copy(self)
        fitting._model, fitting._ready = model, OnDevice(self._ready.memory)
        return fitting

    def derived(
        self,
        make: Callable[[str, ReadDictionary], SparseDictionary],
        *,
        reads: Mapping[str, tuple[Site, ...]],
    ) -> "Suite":
        """Another suite, each of its dictionaries made from this one's when it is asked for.

        `make` is given the name and what reads this suite's dictionary of it, so that it holds
        that one no longer than it needs it.
        They write the same sites; `reads` says what each of them reads.
        """
        derived = copy(self)
        derived._make, derived._derived_reads = make, dict(reads)
        derived._ready = OnDevice(self._ready.memory, beside=self._ready)
        return derived

    def at(self, sites: Iterable[Site]) -> "Suite":
        """Those of the dictionaries that write one of `sites`; what is in memory is shared."""
        wanted, some = set(sites), copy(self)
        some._names = [n for n in self if not wanted.isdisjoint(self.writes_of(n))]
        some._dictionaries = {n: d for n, d in self._dictionaries.items() if n in some._names}
        some._entries = {n: e for n, e in self._entries.items() if n in some._names}
        return some

    def exchanging(self, gone: Iterable[str], others: Mapping[Any, SparseDictionary]) -> "Suite":
        """Another suite, with `others` in the place of the dictionaries that are `gone`."""
        gone, exchanged = set(gone), copy(self)
        exchanged._dictionaries = {n: d for n, d in self._dictionaries.items() if n not in gone}
        exchanged._dictionaries |= {d.name: d for d in others.values()}
        exchanged._entries = {n: e for n, e in self._entries.items() if n not in gone}
        exchanged._ready = OnDevice(self._ready.memory, beside=self._ready)
        exchanged._names = exchanged._in_order()
        return exchanged

    def room_for_states(self, otherwise: float) -> float:
        """Bytes that states of prompts may be kept in: a quarter of the memory, where it is set."""
        memory = self._ready.memory
        return otherwise if memory is None else memory * 1e9 / 4

    @property
    def layout(self) -> str:
        """The layout of its files, such as 'saelens'; 'memory' where it has none."""
        return self._found.layout.name if self._found else "memory"

    @property
    def files(self) -> dict[str, Entry]:
        """By name, those of its dictionaries that are used as their files hold them."""
        return {} if self._make else dict(self._entries)

    @property
    def reads(self) -> list[Site]:
        """Every site that some dictionary reads, in order."""
        sites = {site for name in self for site in self.reads_of(name)}
        return sorted(sites, key=attrgetter("depth"))

    @property
    def writes(self) -> list[Site]:
        """Every site that some dictionary writes, in order."""
        sites = {site for name in self for site in self.writes_of(name)}
        return sorted(sites, key=attrgetter("depth"))

    def writing(self, site: Site) -> list[str]:
        """The dictionaries that write `site`."""
        return [name for name in self if site in self.writes_of(name)]

    def describe(self) -> dict[str, dict[str, str]]:
        """For each dictionary, where it reads and the hash of its files."""
        entries = self._entries
        return {
            name: {"source": str(entry.source), "folder": entry.name, "hash": of_files}
            for (name, entry), of_files in zip(
                entries.items(), hashes(list(entries.values())), strict=True
            )
        }

    def metrics(self) -> dict[str, dict[str, Any]]:
        """What our own files record of each dictionary's quality; other layouts record nothing."""
        if self.layout != "ours":
            return {}
        folders = [entry.fetch()[0].parent for entry in self._entries.values()]
        return {folder.name: ours.read_record(folder)["metrics"] for folder in folders}

    def notify_of_another_model(self, model: nn.Module) -> None:
        """Warn where its files say that its dictionaries were trained on other weights."""
        if self._found:
            notify_of_another_model(model, self._found, self._entries.values())

    def check_width(self, d_model: int) -> None:
        """Raise `ValueError` for a dictionary of a model that is not `d_model` wide.

        Of one in files only the header is read.
        """
        for name in self:
            if name in self._entries:
                shape_of(self._entries[name], d_model)
                continue
            width = self[name].W_dec.shape[1] // len(self.writes_of(name))
            if width != d_model:
                raise ValueError(
                    f"the dictionary of {name} has width {width}, but the model is {d_model} wide: "
                    "it is another model's"
                )

    def summary(self) -> str:
        """What was found, in one line."""
        parts = defaultdict(list)
        for name in self:
            (read, *_), (site, *_) = self.reads_of(name), self.writes_of(name)
            kind = site.kind if read == site else f"{read.kind}-{site.kind}"
            parts[kind].append(site.layer)
        sites = ", ".join(f"{kind} {spans(layers)}".strip() for kind, layers in parts.items())
        where = f" at {self._found.place.label}" if self._found else ""
        noun = "dictionary" if len(self) == 1 else "dictionaries"
        return f"{len(self)} {noun} ({self.layout}){where}: {sites}"

    def reads_of(self, name: str) -> tuple[Site, ...]:
        """The sites that a dictionary reads; one in files is not read for this."""
        if name in self._derived_reads:
            return self._derived_reads[name]
        entry = self._entries.get(name)
        return entry.reads if entry else self._dictionaries[name].reads

    def read(self, name: str, values: Mapping[Site, Tensor]) -> Float[Tensor, "*batch d_source"]:
        """What a dictionary reads of the model's tensors; one in files is not read for this."""
        return side_by_side(values, self.reads_of(name))

    def writes_of(self, name: str) -> tuple[Site, ...]:
        """The sites that a dictionary writes; one in files is not read for this."""
        entry = self._entries.get(name)
        return entry.writes if entry else self._dictionaries[name].writes


def load_suite(source: str | Path, *, mlp: MlpChoice = "sae", memory: float | None = None) -> Suite:
    """The suite in a folder of any layout that is known, on the hub, or the bundled one.

    Weights are read when they are asked for, and kept up to `memory` GB. Where an SAE and a
    transcoder both write `mlp_out.L`, `mlp` picks; a site with only one of them keeps that one.

    Raises `ValueError` when a site is left with several dictionaries, such as several widths.
    """
    found = find(source)
    by_name: dict[str, list[Entry]] = defaultdict(list)
    for entry in found.entries:
        by_name[entry.node_name].append(entry)
    chosen: dict[str, Entry] = {}
    for name, entries in by_name.items():
        preferred = [e for e in entries if (e.source != e.target) == (mlp == "transcoder")]
        chosen[name], *others = preferred or entries
        if others:
            names = ", ".join(e.name for e in (chosen[name], *others[:3]))
            raise ValueError(
                f"{found.place.label} has {1 + len(others)} dictionaries of {name}: "
                f"name the folder of one of them, such as {names}"
            )
    return Suite({}, chosen, found, memory)


__getattr__ = moved(
    __name__,
    {
        **dict.fromkeys(("InTurn", "OnDemand", "each", "fitting", "load_all"), "saes.on_demand"),
        **dict.fromkeys(("folder_of", "place_of"), "saes.formats.finding"),
    },
)

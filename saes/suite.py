"""A suite: the dictionaries that a graph is made of, one for each target site."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen import bundled
from hooked_qwen.identity import identity
from hooked_qwen.load import BUNDLED
from hooked_qwen.notices import notify
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary, fitted
from saes.formats import ours
from saes.formats.hub import hub_place, is_hub_name
from saes.formats.place import Entry, Place, local_place
from saes.formats.table import Found, recognise

MlpChoice = Literal["sae", "transcoder"]
if TYPE_CHECKING:
    Dictionaries = Mapping[Site, SparseDictionary]
else:
    # A checker of types at run time looks into what says what it maps to, and so would read it.
    Dictionaries = Mapping


class Suite(Dictionaries):
    """Dictionaries by target site, in the order of the forward pass.

    Those that were found in files are read when they are first asked for, and then kept, up to
    `memory` GB: beyond that the one that was not asked for the longest is let go, and read again.
    """

    def __init__(
        self,
        dictionaries: Mapping[Site, SparseDictionary],
        entries: Mapping[Site, Entry],
        found: Found | None = None,
        memory: float | None = None,
    ) -> None:
        self._dictionaries = dict(dictionaries)
        self._entries = dict(sorted(entries.items()))
        self._found = found
        self._memory = memory
        self._model: TransformerBridge | None = None
        # As they are used, the one asked for last at the end.
        self._ready: dict[Site, SparseDictionary] = {}
        self._sites = sorted({*dictionaries, *entries})

    def __repr__(self) -> str:
        return f"Suite: {self.summary()}"

    def __getitem__(self, name: Site | str) -> SparseDictionary:
        """The dictionary that writes a site, which may be given as in 'resid_post.1'.

        Raises `KeyError` listing the sites there are.
        """
        site: Site = _parsed(name)
        if site not in self:
            there = ", ".join(map(str, self._sites)) or "none"
            raise KeyError(f"no dictionary writes {site}; those that are there write {there}")
        dictionary = self._ready.pop(site, None) or self._made_ready(site)
        self._ready[site] = dictionary
        self._make_room()
        return dictionary

    def _made_ready(self, site: Site) -> SparseDictionary:
        as_read = self._dictionaries.get(site)
        if as_read is None:
            assert self._found, "a suite with entries says where they were found"
            as_read = self._found.load(self._entries[site])
            if self._memory is None:
                self._dictionaries[site] = as_read
        return as_read if self._model is None else fitted(as_read, self._model)

    def _make_room(self) -> None:
        if self._memory is None:
            return
        sizes = {site: _bytes(dictionary) for site, dictionary in self._ready.items()}
        *others, _ = sizes
        for site in others:
            if sum(sizes.values()) <= self._memory * 1e9:
                return
            del sizes[site], self._ready[site]

    def __contains__(self, site: object) -> bool:
        # Mapping's own would read the dictionary.
        site = _parsed(site)
        return site in self._dictionaries or site in self._entries

    def __iter__(self) -> Iterator[Site]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def fitting(self, model: TransformerBridge) -> "Suite":
        """The same suite, its dictionaries as `fitted` makes them: in precision, on the device."""
        if self._model is model:
            return self
        # What one of the two reads from its files is kept for both.
        fitting = copy(self)
        fitting._model, fitting._ready = model, {}
        return fitting

    @property
    def layout(self) -> str:
        """The layout of its files, such as 'saelens'; 'memory' where it has none."""
        return self._found.layout.name if self._found else "memory"

    @property
    def sources(self) -> list[Site]:
        """Every site that some dictionary reads, in order."""
        return sorted({self._source(site) for site in self})

    def describe(self) -> dict[str, dict[str, str]]:
        """For each target site, where its dictionary reads and the hash of its files."""
        return {
            str(site): {
                "source": str(entry.source),
                "folder": entry.name,
                "hash": entry.hash(),
            }
            for site, entry in self._entries.items()
        }

    def metrics(self) -> dict[str, dict[str, Any]]:
        """What our own files record of each dictionary's quality; other layouts record nothing."""
        if self.layout != "ours":
            return {}
        folders = [entry.fetch()[0].parent for entry in self._entries.values()]
        return {folder.name: ours.read_record(folder)["metrics"] for folder in folders}

    def notify_of_another_model(self, model: TransformerBridge) -> None:
        """Warn where its files say that its dictionaries were trained on other weights."""
        if self._found:
            notify_of_another_model(model, self._found, self._entries.values())

    def summary(self) -> str:
        """What was found, in one line."""
        parts = defaultdict(list)
        for site in self:
            kind = (
                site.kind
                if self._source(site) == site
                else f"{self._source(site).kind}-{site.kind}"
            )
            parts[kind].append(site.layer)
        sites = ", ".join(f"{kind} {_spans(layers)}".strip() for kind, layers in parts.items())
        where = f" at {self._found.place.label}" if self._found else ""
        noun = "dictionary" if len(self) == 1 else "dictionaries"
        return f"{len(self)} {noun} ({self.layout}){where}: {sites}"

    def _source(self, site: Site) -> Site:
        entry = self._entries.get(site)
        return entry.source if entry else self._dictionaries[site].source


def _bytes(dictionary: SparseDictionary) -> int:
    return sum(buffer.numel() * buffer.element_size() for buffer in dictionary.buffers())


def _parsed(site: Any) -> Any:
    """The site that a text names; what names none stays as it is, and is in no suite."""
    try:
        return Site.parse(site) if isinstance(site, str) else site
    except ValueError:
        return site


def _spans(layers: list[int]) -> str:
    """Layers as `parse_layers` reads them: 0-3,7; nothing for `embed`."""
    runs = [
        [layer for _, layer in run] for _, run in groupby(enumerate(layers), lambda p: p[1] - p[0])
    ]
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return ",".join(texts) if layers[0] >= 0 else ""


def folder_of(source: str | Path) -> Path:
    """The folder that `--dictionaries` names; raises `ValueError` when there is none."""
    path = bundled.DICTIONARIES if str(source) == BUNDLED else Path(source).expanduser()
    if not path.is_dir():
        raise ValueError(f"there are no dictionaries at {source}: no such folder")
    return path


def find(source: str | Path) -> Found:
    """Every dictionary at `source`, which is a folder, a name on the hub, or `bundled`."""
    return recognise(_place(source))


def pinned(source: str | Path) -> str:
    """`source` so that it names the same files elsewhere and later.

    A folder's full path, or hf:org/name@commit.
    """
    return _place(source).label


def hash_of(source: str | Path) -> str:
    """A hash of every dictionary at `source`, by name and content; of nothing else there."""
    parts = sorted(f"{entry.name} {entry.hash()}" for entry in find(source).entries)
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def notify_of_another_model(
    model: TransformerBridge, found: Found, entries: Iterable[Entry]
) -> None:
    """Warn where files say that dictionaries were trained on other weights than the model's.

    Only our own layout says so; files of earlier versions do not.
    """
    if found.layout.name != "ours":
        return
    others: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        # The second file is the record; the weights are not fetched for this.
        about = ours.read_record(entry.place.fetch(entry.files[1]).parent)["model"]
        if about.get("hash") not in (None, identity(model)):
            others[f"{about.get('name')} ({about['hash']})"].append(entry.name)
    for other, names in others.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        notify(
            f"{', '.join(names[:3])}{more} of {found.place.label} were trained on another model, "
            f"{other}, than {model.cfg.model_name} ({identity(model)}), which they are used with "
            "here: fine for a fine-tune of it; otherwise their features mean nothing here"
        )


def _place(source: str | Path) -> Place:
    text = str(source)
    is_here = text == BUNDLED or Path(source).expanduser().is_dir()
    if not is_here and is_hub_name(text):
        return hub_place(text)
    return local_place(folder_of(source))


def load_suite(source: str | Path, *, mlp: MlpChoice = "sae", memory: float | None = None) -> Suite:
    """The suite in a folder of any layout that is known, on the hub, or the bundled one.

    Weights are read when they are asked for, and kept up to `memory` GB. Where an SAE and a
    transcoder both write `mlp_out.L`, `mlp` picks; a site with only one of them keeps that one.

    Raises `ValueError` when a site is left with several dictionaries, such as several widths.
    """
    found = find(source)
    by_target: dict[Site, list[Entry]] = defaultdict(list)
    for entry in found.entries:
        by_target[entry.target].append(entry)
    chosen: dict[Site, Entry] = {}
    for site, entries in by_target.items():
        preferred = [e for e in entries if (e.source != e.target) == (mlp == "transcoder")]
        chosen[site], *others = preferred or entries
        if others:
            names = ", ".join(e.name for e in (chosen[site], *others[:3]))
            raise ValueError(
                f"{found.place.label} has {1 + len(others)} dictionaries of {site}: "
                f"name the folder of one of them, such as {names}"
            )
    return Suite({}, chosen, found, memory)

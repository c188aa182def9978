"""What a name of dictionaries means: a folder, a repository on the hub, or those that we bring."""

from collections import defaultdict
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from torch import nn
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen import bundled
from hooked_qwen.identity import identity, identity_of
from hooked_qwen.load import BUNDLED
from hooked_qwen.notices import notify
from saes.formats import ours
from saes.formats.hub import hub_place, is_hub_name
from saes.formats.place import Entry, Place, hashes, local_place
from saes.formats.table import FoundDictionaries, recognise


def folder_of(source: str | Path) -> Path:
    """The folder that `--dictionaries` names; raises `ValueError` when there is none."""
    path = bundled.DICTIONARIES if str(source) == BUNDLED else Path(source).expanduser()
    if not path.is_dir():
        raise ValueError(f"there are no dictionaries at {source}: no such folder")
    return path


def find(source: str | Path) -> FoundDictionaries:
    """Every dictionary at `source`, which is a folder, a name on the hub, or `bundled`."""
    return recognise(place_of(source))


def pinned(source: str | Path) -> str:
    """`source` so that it names the same files elsewhere and later.

    A folder's full path, or hf:org/name@commit.
    """
    return place_of(source).label


def hash_of(source: str | Path) -> str:
    """A hash of every dictionary at `source`, by name and content; of nothing else there."""
    entries = find(source).entries
    parts = sorted(
        f"{entry.name} {of_files}" for entry, of_files in zip(entries, hashes(entries), strict=True)
    )
    return sha256("\n".join(parts).encode()).hexdigest()[:16]


def notify_of_another_model(
    model: nn.Module, found: FoundDictionaries, entries: Iterable[Entry]
) -> None:
    """Warn where files say that dictionaries were trained on other weights than the model's.

    Only our own layout says so; files of earlier versions do not.
    """
    if found.layout.name != "ours":
        return
    others: dict[str, list[str]] = defaultdict(list)
    bridge = model if isinstance(model, TransformerBridge) else None
    own = identity_of(model) if bridge is None else identity(bridge)
    for entry in entries:
        # The second file is the record; the weights are not fetched for this.
        about = ours.read_record(entry.place.fetch(entry.files[1]).parent)["model"]
        if about.get("hash") not in (None, own):
            # Of files that were read by a map the hash may be all that is known.
            others[f"{about.get('name', 'unnamed')} ({about['hash']})"].append(entry.name)
    called = "the model" if bridge is None else bridge.cfg.model_name
    for other, names in others.items():
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        notify(
            f"{', '.join(names[:3])}{more} of {found.place.label} were trained on another model, "
            f"{other}, than {called} ({own}), which they are used with "
            "here: fine for a fine-tune of it; otherwise their features mean nothing here"
        )


def place_of(source: str | Path) -> Place:
    """The folder that is meant, here or on the hub."""
    text = str(source)
    is_here = text == BUNDLED or Path(source).expanduser().is_dir()
    if not is_here and is_hub_name(text):
        return hub_place(text)
    return local_place(folder_of(source))

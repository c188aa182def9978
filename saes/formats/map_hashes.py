"""Which files a map was made for, by the SHA-256 of what they hold."""

from collections.abc import Iterable, Mapping, Sequence

from saes.formats.checkpoint import VALUE, configuration
from saes.formats.place import Entry, Place


def sha256_of(entries: Sequence[Entry], terms: Iterable[str]) -> dict[str, str]:
    """The hashes of all files that are read: weights, and configurations that terms take from."""
    found: dict[str, str] = {}
    numbers = [parts[2] for parts in map(VALUE.fullmatch, terms) if parts]
    files = {number.rpartition(":")[0] for number in numbers} - {""}
    for entry in entries:
        beside = [configuration(entry, file) for file in sorted(files)]
        for name in (entry.files[0], *filter(None, beside)):
            found[name] = entry.place.sha256(name)
    return found


def check_sha256(expected: Mapping[str, str], place: Place, weights: Iterable[str]) -> None:
    """Raise `ValueError` for a file of other content, and for weights that have no hash.

    Files of the map that are not in `place` are not looked for. Without hashes nothing is read.
    """
    for name, told in expected.items():
        if name in place.names and (found := place.sha256(name)) != told.lower():
            raise ValueError(
                f"{name} of {place.label} is not the file of the map: its SHA-256 is {found}, the "
                f"map has {told}; leave sha256 out of the map to read it all the same"
            )
    if expected and (others := [name for name in weights if name not in expected]):
        raise ValueError(
            f"the map has no sha256 of {others[0]} of {place.label}, but of other files: add it, "
            "or leave sha256 out of the map"
        )

"""Which dictionaries a suite is made of: a hash, by which an edit knows its features again."""

from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

from saes.dictionary import SparseDictionary
from saes.formats.place import Entry
from saes.suite import Suite

# By their paths, sizes and times, and by object: hashing reads all of the weights.
_of_files: dict[Any, str] = {}
_in_memory: WeakKeyDictionary[SparseDictionary, str] = WeakKeyDictionary()


def suite_hash(suite: Suite) -> str:
    """First 16 hex digits of a SHA-256 of every dictionary of a suite, by name and content.

    The same wherever the files lie. Of dictionaries that are in no file, the values in float32.
    """
    files = suite.files
    parts = [
        f"{name} {_hash_of_files(files[name]) if name in files else _hash_of_values(suite[name])}"
        for name in suite
    ]
    return sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def suite_told(suite: Suite) -> str:
    """Which dictionaries these are, for people."""
    return f"{suite.summary()} ({suite_hash(suite)})"


def _hash_of_files(entry: Entry) -> str:
    states = ((path, path.stat()) for path in entry.fetch())
    key = tuple((path, state.st_size, state.st_mtime_ns) for path, state in states)
    if key not in _of_files:
        _of_files[key] = entry.hash()
    return _of_files[key]


def _hash_of_values(dictionary: SparseDictionary) -> str:
    if dictionary not in _in_memory:
        digest = sha256(repr(dictionary.spec).encode())
        for name, value in sorted(dictionary.state_dict().items()):
            digest.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
        _in_memory[dictionary] = digest.hexdigest()[:16]
    return _in_memory[dictionary]

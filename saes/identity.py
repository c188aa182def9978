"""Which dictionaries a suite is made of: a hash, by which an edit knows its features again."""

from hashlib import sha256
from weakref import WeakKeyDictionary

from saes.dictionary import SparseDictionary
from saes.suite import Suite

_in_memory: WeakKeyDictionary[SparseDictionary, str] = WeakKeyDictionary()


def suite_hash(suite: Suite) -> str:
    """First 16 hex digits of a SHA-256 of every dictionary of a suite, by name and content.

    The same wherever the files lie. Of dictionaries that are in no file, the values in float32.
    """
    files = suite.files
    parts = [
        f"{name} {files[name].hash() if name in files else _hash_of_values(suite[name])}"
        for name in suite
    ]
    return sha256("\n".join(sorted(parts)).encode()).hexdigest()[:16]


def suite_told(suite: Suite) -> str:
    """Which dictionaries these are, for people."""
    return f"{suite.summary()} ({suite_hash(suite)})"


def _hash_of_values(dictionary: SparseDictionary) -> str:
    if dictionary not in _in_memory:
        digest = sha256(repr(dictionary.spec).encode())
        for name, value in sorted(dictionary.state_dict().items()):
            digest.update(name.encode() + value.float().cpu().contiguous().numpy().tobytes())
        _in_memory[dictionary] = digest.hexdigest()[:16]
    return _in_memory[dictionary]

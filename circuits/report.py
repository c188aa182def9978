"""How long work tells of its progress."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Report(Protocol):
    """Told what is being done, how much of it is done, how much there is, and how it goes."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """A report that nobody reads."""

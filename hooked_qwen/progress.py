"""How long work tells of its progress."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable


@runtime_checkable
class Report(Protocol):
    """Told what is being done, how much of it is done, how much there is, and how it goes."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """A report that nobody reads."""


def counting(report: Report, what: str, total: int) -> Callable[[int], None]:
    """Adds up what has been done, for work that is told of piece by piece."""
    done = 0

    def tick(n: int) -> None:
        nonlocal done
        done += n
        report(what, done, total)

    return tick

"""Words for the user: what to know although the work goes on, what failed, how many of a thing.

A notice is a Python warning, on the terminal a line.
"""

import warnings


class Notice(UserWarning):
    """One line about the input or the result; `circuits` prints it, where it hides others."""


def notify(text: str) -> None:
    """Warn with one line; said again and again, it is shown once."""
    # The caller's caller asked for the work; a line of ours tells a reader nothing.
    warnings.warn(text, Notice, stacklevel=3)


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """`1 node`, `2 nodes`, `1,000 nodes`."""
    return f"{n:,} {noun if n == 1 else plural or f'{noun}s'}"


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

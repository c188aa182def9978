"""What a user should know although the work goes on: a Python warning, a line on the terminal."""

import warnings


class Notice(UserWarning):
    """One line about the input or the result; `circuits` prints it, where it hides others."""


def notify(text: str) -> None:
    """Warn with one line; said again and again, it is shown once."""
    # The caller's caller asked for the work; a line of ours tells a reader nothing.
    warnings.warn(text, Notice, stacklevel=3)

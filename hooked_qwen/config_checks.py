"""Checks of configurations, with one message for each."""

from typing import Any


def check_at_least(least: int, config: Any, *names: str) -> None:
    """Raise `ValueError` for a field below `least`; None is one that was not given."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise ValueError(f"{name} is {value}: expected at least {least}")

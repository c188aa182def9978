"""Names that moved to another module: for one release they are still found in the old one."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def moved(module: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__`: names that were there, with a warning that says where they are."""

    def found(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        told = f"{name} is in {places[name]}: import it from there"
        warnings.warn(told, DeprecationWarning, stacklevel=2)
        return getattr(import_module(places[name]), name)

    return found

"""Sizes of ours that a test makes small, so that toys cross them.

Most laws about parts ("how many go together changes nothing") are held through a parameter of a
public function. Some sizes are used several calls below anything that a user calls, and a
parameter would go through all of these to serve a test alone. Those are set here, and nothing else
is: no function, no private name (`tests/test_tests.py` holds that).
"""

from importlib import import_module
from typing import Any

import pytest

SIZES = (int, float)


def set_size(patch: pytest.MonkeyPatch, name: str, value: float) -> None:
    """Set a module's constant, `saes.training.held_out.HELD_OUT_CHARACTERS`, while `patch` lasts.

    Raises `ValueError` for what is no public number in capitals.
    """
    module, _, constant = name.rpartition(".")
    found: Any = getattr(import_module(module), constant)
    if constant.startswith("_") or not constant.isupper() or not isinstance(found, SIZES):
        raise ValueError(f"{name} is {found!r}: expected a number with a public name in capitals")
    patch.setattr(f"{module}.{constant}", value)

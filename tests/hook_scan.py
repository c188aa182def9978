"""TransformerLens looks for hooks under fewer names: a third of the time to make a toy model.

It asks every module for whatever `dir` names, twice for each model. Here `dir` names what can be a
hook: what the module itself holds, and what its class computes. A method cannot.
"""

from functools import cache
from inspect import getattr_static
from types import FunctionType
from typing import Any
from unittest.mock import patch

from torch import nn
from transformer_lens.model_bridge import TransformerBridge

NO_HOOK = (FunctionType, classmethod, staticmethod)
scan_in_full = TransformerBridge._scan_existing_hooks


def install() -> None:
    TransformerBridge._scan_existing_hooks = scan


def scan(bridge: TransformerBridge, module: Any, prefix: str = "") -> None:
    with patch.object(nn.Module, "__dir__", names_of):
        scan_in_full(bridge, module, prefix)


def names_of(module: nn.Module) -> list[str]:
    return [*computed(type(module)), *vars(module), *module._modules]


@cache
def computed(kind: type) -> list[str]:
    """Names of the class whose values are made when they are asked for, such as properties."""
    found = {name: getattr_static(kind, name) for name in dir(kind)}
    return [
        name
        for name, value in found.items()
        if isinstance(value, nn.Module)
        or (hasattr(value, "__get__") and not isinstance(value, NO_HOOK))
    ]

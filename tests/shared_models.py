"""Models made once for all tests that leave them as they are.

`tests/conftest.py` looks after each file whether they do.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Shared:
    model: TransformerBridge
    values: list[Tensor]
    "What its weights and buffers were when it was made."
    form: Any
    "What its `form_of` was."


MADE: dict[Hashable, Shared] = {}


def shared(key: Hashable, make: Callable[[], TransformerBridge]) -> TransformerBridge:
    """The model of that key: made where there is none yet, or where a test has changed it."""
    if key not in MADE:
        model = make()
        values = [tensor.clone() for tensor in tensors_of(model)]
        MADE[key] = Shared(model, values, form_of(model))
    return MADE[key].model


def drop_changed() -> list[Hashable]:
    """Forget models that are not as they were made: their keys."""
    found = [key for key, made in MADE.items() if is_changed(made)]
    for key in found:
        del MADE[key]
    return found


def is_changed(made: Shared) -> bool:
    pairs = zip(tensors_of(made.model), made.values, strict=True)
    changed = any(x.requires_grad or not torch.equal(x, value) for x, value in pairs)
    return changed or form_of(made.model) != made.form


def form_of(model: TransformerBridge) -> Any:
    """Its modules' classes and modes, its settings, its tokenizer, and how many hooks it has."""
    modules, tokenizer = [*model.modules()], model.tokenizer
    told = (id(tokenizer), repr(tokenizer), getattr(tokenizer, "chat_template", None))
    settings = {k: v for k, v in vars(model.cfg).items() if isinstance(v, bool | int | str)}
    own = model.original_model
    settings |= own.config.to_dict() | own.generation_config.to_dict()
    hooks = sum(len(m._forward_hooks) for m in modules if isinstance(m, HookPoint))
    return [(type(m), m.training) for m in modules], settings, told, hooks


def tensors_of(model: TransformerBridge) -> Iterator[Tensor]:
    own = model.original_model
    return chain(own.parameters(), own.buffers())

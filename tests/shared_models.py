"""Models made once for all tests that leave them as they are.

`tests/conftest.py` looks after each file whether they do.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge


@dataclass(frozen=True)
class Shared:
    model: TransformerBridge
    values: list[Tensor]
    "What its weights and buffers were when it was made."
    form: Any
    "What its `form_of` was."


MADE: dict[Hashable, Shared] = {}
USED: set[Hashable] = set()
"Keys that were asked for since it was last looked whether models have changed."
PLAIN = bool | int | float | str
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def shared(key: Hashable, make: Callable[[], TransformerBridge]) -> TransformerBridge:
    """The model of that key: made where there is none yet, or where a test has changed it."""
    USED.add(key)
    if key not in MADE:
        model = make()
        # At its first run TransformerLens hooks its norms.
        with torch.no_grad():
            model(torch.ones(1, 1, dtype=torch.long))
        values = [tensor.clone() for tensor in tensors_of(model)]
        MADE[key] = Shared(model, values, form_of(model))
    return MADE[key].model


def drop_changed() -> list[Hashable]:
    """Forget models that were used and are not as they were made: their keys."""
    found = [key for key in USED & MADE.keys() if is_changed(MADE[key])]
    for key in found:
        del MADE[key]
    USED.clear()
    return found


def is_changed(made: Shared) -> bool:
    pairs = zip(tensors_of(made.model), made.values, strict=True)
    changed = any(x.requires_grad or not torch.equal(x, value) for x, value in pairs)
    return changed or form_of(made.model) != made.form


def form_of(model: TransformerBridge) -> Any:
    """Its modules' classes, modes, hooks and own functions; its settings; its tokenizer."""
    modules, tokenizer = [*model.modules()], model.tokenizer
    told = (id(tokenizer), repr(tokenizer), getattr(tokenizer, "chat_template", None))
    settings = {k: v for k, v in vars(model.cfg).items() if isinstance(v, PLAIN)}
    own = model.original_model
    settings |= own.config.to_dict() | own.generation_config.to_dict()
    settings["attention"] = own.config._attn_implementation
    of_modules = [
        (type(m), m.training, "forward" in vars(m), *(len(vars(m)[kind]) for kind in HOOKS))
        for m in modules
    ]
    return of_modules, settings, told


def tensors_of(model: TransformerBridge) -> Iterator[Tensor]:
    own = model.original_model
    return chain(own.parameters(), own.buffers())

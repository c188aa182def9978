"""What a CUDA graph does, without CUDA: the operators of some work, run again on the same tensors.

It cannot hold what a graph cannot: a wait of the host, a tensor whose size the device decides, a
copy from the host. Where a graph records without doing the work, the tape does it at once, so the
first replay, which follows directly, does nothing.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

WAITS = ("_local_scalar_dense", "nonzero", "equal", "item", "unique", "masked_select")
READ = ("aten.masked_fill_.Tensor", "aten.masked_fill.Tensor")
"CUDA reads the number that fills."
COPIES = ("copy_", "_to_copy")


class Tape(TorchDispatchMode):
    """The operators of some work and what each gave."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        if name in WAITS or (name == "index" and _is_mask(args)) or str(func) in READ:
            raise RuntimeError(f"{name} would wait for the device while a step is recorded")
        result = func(*args, **kwargs)
        if name in COPIES and _hosts(args) and any(not t.is_cpu for t in _tensors((args, result))):
            raise RuntimeError(f"{name} would copy from the host while a step is recorded")
        self.calls.append((func, args, kwargs, result))
        return result

    def replay(self) -> None:
        self.replays += 1
        if self.replays == 1:
            return
        for func, args, kwargs, before in self.calls:
            again = func(*args, **kwargs)
            if any(given.alias_info is not None for given in func._schema.returns):
                continue
            for old, new in zip(_tensors(before), _tensors(again), strict=True):
                if old.layout == torch.strided:
                    assert old.shape == new.shape, f"{func}: {old.shape}, then {new.shape}"
                    old.copy_(new)


def _tensors(values: Any) -> list[Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, Tensor)]


def _hosts(values: Any) -> list[Tensor]:
    return [tensor for tensor in _tensors(values) if tensor.is_cpu]


def _is_mask(args: Any) -> bool:
    return any(tensor.dtype == torch.bool for tensor in _tensors(args[1:]))


class Tapes:
    """Stands in for what records steps on a device."""

    def __call__(self, device: torch.device) -> Callable[..., Callable[[], None]]:
        return self.record

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        tape = Tape()
        with tape:
            work()
        return tape.replay

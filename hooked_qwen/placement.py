"""Where a model is computed, and in which precision.

device    a name that torch knows (cpu, cuda, cuda:1, mps, ...), or auto: the first accelerator
          that is there, else the CPU; several with commas between (cuda:0,cuda:1) for a model
          that is too large for one
dtype     of the model's weights; features, effects and metrics are float32 whatever it is
memory    what dictionaries and states may take on the device
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import nn

from hooked_qwen.precision import model_precision

DtypeName = Literal["float32", "bfloat16", "float16"]
AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where to compute, as a user says it.

    Raises `ValueError` for a precision that models are not run in, and for no memory at all.
    """

    device: str | None = None
    "None for that of the run that is taken up; `auto` where there is none"
    dtype: DtypeName | None = None
    "None for that of the run that is taken up; `float32` where there is none"
    memory: float | None = None
    "GB (10^9 bytes) that dictionaries and states may take on the device; None for all there is"

    def __post_init__(self) -> None:
        if self.dtype is not None:
            dtype_called(self.dtype)
        if self.memory is not None and not self.memory > 0:
            raise ValueError(f"the memory is {self.memory} GB: expected more than 0")

    @property
    def model_dtype(self) -> DtypeName:
        """The precision of a model where no run says another."""
        return self.dtype or "float32"


ANYWHERE = Placement()


def dtype_called(name: str) -> torch.dtype:
    """The precision of that name; raises `ValueError` for one that models are not run in."""
    if name not in get_args(DtypeName):
        raise ValueError(
            f"models do not run in {name!r}: expected one of {', '.join(get_args(DtypeName))}"
        )
    return getattr(torch, name)


def name_of(dtype: torch.dtype) -> str:
    """The name of a precision, such as `float32`."""
    return str(dtype).removeprefix("torch.")


def find_device(name: str | torch.device = AUTO) -> torch.device:
    """The device that `name` stands for; of several that one where tokens are read, the first.

    Raises `ValueError` when torch knows no such device, or one of them is not on this machine.
    """
    return find_devices(name)[0]


def find_devices(name: str | torch.device = AUTO) -> tuple[torch.device, ...]:
    """The devices that `name` stands for: one, or those between its commas.

    Raises `ValueError` as `find_device`, and where one is named twice.
    """
    if name == AUTO:
        found = torch.accelerator.current_accelerator(check_available=True)
        return (found or torch.device("cpu"),)
    found = tuple(_device(part.strip()) for part in str(name).split(","))
    # "cuda" is the current one of those with a number.
    if len({torch.empty(0, device=device).device for device in found}) < len(found):
        raise ValueError(f"{name} names a device twice: expected each of them once")
    return found


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(
            f"torch knows no device called {name!r}: expected auto, cpu, cuda, cuda:1, mps "
            "or another of torch's, or several of them with commas between"
        ) from None
    try:
        torch.empty(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError):
        there = ", ".join(devices())
        raise ValueError(f"there is no device {name!r} here: expected one of {there}") from None
    return device


def is_here(name: str) -> bool:
    """Whether there is a device of that name on this machine."""
    try:
        find_device(name)
    except ValueError:
        return False
    return True


def devices() -> list[str]:
    """Names of the devices of this machine."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None:
        return ["cpu"]
    count = torch.accelerator.device_count()
    return ["cpu", *(f"{accelerator.type}:{n}" for n in range(count))]


def device_of(model: nn.Module) -> torch.device:
    """The device that a model's tokens are read on, and its activations are computed with."""
    return next(model.parameters()).device


def devices_of(model: nn.Module) -> list[torch.device]:
    """Every device that has a part of a model, the one of `device_of` first."""
    return list(dict.fromkeys(p.device for p in model.parameters()))


def placement_of(model: nn.Module, memory: float | None = None) -> Placement:
    """Where a model is and in which precision, with what `memory` it may be used."""
    dtype: Any = name_of(model_precision(model))
    device = ",".join(map(str, devices_of(model)))
    return Placement(device=device, dtype=dtype, memory=memory)

"""A model whose layers lie on several devices, for one that is too large for any of them.

Layers stand on the devices in their order, as many on each as its free memory has a share of; the
CPU takes what the others have no room for. Where torch cannot tell how much is free, each takes as
much as the others. What is before and after the layers (embeddings, final
norm, unembedding) is on the first device, the model's home: tokens are read there, and whatever is
captured or edited is brought there and back, so dictionaries, states and metrics know one device.
"""

import logging
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from accelerate import dispatch_model
from torch import nn
from transformers import PreTrainedModel

FOR_LAYERS = 0.6
"Share of what is free on a device; the rest is for dictionaries, states and activations."


def spread(model: PreTrainedModel, devices: Sequence[torch.device]) -> None:
    """Move the layers of a model that is on the CPU to `devices`; inputs follow them there."""
    # Where the main device is another, accelerate takes the CPU for a store of weights.
    main: Any = "cpu" if any(d.type == "cpu" for d in devices) else str(devices[0])
    skip = getattr(model, "_skip_keys_device_placement", None)
    places: Any = device_map(model, devices, [free_memory(d) for d in devices])
    # It warns of weights that it took off the CPU, which it does not here.
    logging.getLogger("accelerate.big_modeling").setLevel(logging.ERROR)
    dispatch_model(model, places, main_device=main, skip_keys=skip)


def device_map(
    model: PreTrainedModel, devices: Sequence[torch.device], free: Sequence[int | None]
) -> dict[str, str]:
    """The device of every part of a model, by its name.

    `free` are the bytes that are free on each device, None where that is not known.
    """
    home, prefix = str(devices[0]), model.base_model_prefix
    base: Any = getattr(model, prefix)
    places = {name: home for name, _ in model.named_children() if name != prefix}
    places |= {f"{prefix}.{name}": home for name, _ in base.named_children() if name != "layers"}
    rooms = _rooms(_size(model), devices, free)
    # The first device also has what is beside the layers.
    rooms[0] = max(0.0, rooms[0] - _size(model) + _size(base.layers))
    ends, sizes = list(accumulate(rooms)), [_size(layer) for layer in base.layers]
    for layer, (end, size) in enumerate(zip(accumulate(sizes), sizes, strict=True)):
        middle = (end - size / 2) / sum(sizes) * ends[-1]
        which = min(bisect(ends, middle), len(devices) - 1)
        places[f"{prefix}.layers.{layer}"] = str(devices[which])
    return places


def _rooms(size: int, devices: Sequence[torch.device], free: Sequence[int | None]) -> list[float]:
    """Bytes of a model of `size` bytes that each device may take, or in which proportion."""
    on_cpu = [device.type == "cpu" for device in devices]
    if any(n is None and not cpu for n, cpu in zip(free, on_cpu, strict=True)):
        return [size / len(devices)] * len(devices)
    rooms = [0.0 if cpu else FOR_LAYERS * (n or 0) for n, cpu in zip(free, on_cpu, strict=True)]
    if True in on_cpu:
        rooms[on_cpu.index(True)] = max(0.0, size - sum(rooms))
    return rooms


def _size(module: nn.Module) -> int:
    return sum(p.numel() * p.element_size() for p in module.parameters())


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, None where torch cannot tell."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return None

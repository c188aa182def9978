"""Tensors of a device brought to the host together: the host waits for the device at each copy."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LARGEST = 8
"Bytes of the largest number; parts of the copy begin at multiples of it."


def to_host(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors on the CPU, of whatever types and shapes, brought there in one copy.

    They must be on one device; those that are on the CPU stay as they are.
    """
    if all(tensor.is_cpu for tensor in tensors):
        return list(tensors)
    parts = [tensor.detach().reshape(-1).view(torch.uint8) for tensor in tensors]
    padded = [F.pad(part, (0, -len(part) % LARGEST)) for part in parts]
    copies = torch.cat(padded).cpu().split([len(part) for part in padded])
    return [
        copy[: len(part)].view(tensor.dtype).view(tensor.shape).clone()
        for copy, part, tensor in zip(copies, parts, tensors, strict=True)
    ]

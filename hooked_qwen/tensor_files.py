"""Tensors from files, laid out in memory as those that were computed: the same sums, to the bit.

Matrix libraries round differently by where a tensor starts in memory, and a tensor that is mapped
from a safetensors file starts wherever the file's header happens to end. PyTorch's own start at
multiples of 64 bytes. Everything that is read and then computed with comes through here.
"""

from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

ALIGNMENT = 64
"Bytes; PyTorch's own tensors start at multiples of it."


def aligned(tensor: Tensor) -> Tensor:
    """`tensor`, or a copy of it where it does not lie in memory as a new one would."""
    plain = tensor.contiguous()
    if plain.device.type == "cpu" and plain.numel() and plain.data_ptr() % ALIGNMENT:
        return plain.clone()
    return plain


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, aligned, copied one at a time where they are not.

    Those that the file holds aligned stay mapped to it, and are read when they are used. Raises
    `SafetensorError` or `OSError` for a file that is damaged or missing.
    """
    return read_tensors_and_metadata(path)[0]


def read_array(path: Path) -> Tensor:
    """The array of a `.npy` file, aligned; raises `ValueError` or `OSError` for a damaged one."""
    return aligned(torch.from_numpy(np.load(path, allow_pickle=False)))


def read_tensors_and_metadata(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `read_tensors` gives, and the texts in the file's header."""
    with safe_open(path, framework="pt") as file:
        names: list[str] = list(file.keys())
        return {name: aligned(file.get_tensor(name)) for name in names}, file.metadata() or {}

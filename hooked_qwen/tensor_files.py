"""Tensors from files, laid out in memory as those that were computed: the same sums, to the bit.

Matrix libraries round differently by where a tensor starts in memory, and a tensor that is mapped
from a safetensors file starts wherever the file's header happens to end. PyTorch's own start at
multiples of 64 bytes. Everything that is read and then computed with comes through here.
"""

import json
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

ALIGNMENT = 64
"Bytes; PyTorch's own tensors start at multiples of it."
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"What safetensors calls them."


def aligned(tensor: Tensor) -> Tensor:
    """`tensor`, or a copy of it where it does not lie in memory as a new one would."""
    plain = tensor.contiguous()
    if plain.device.type == "cpu" and plain.numel() and plain.data_ptr() % ALIGNMENT:
        return plain.clone()
    return plain


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, aligned, each read straight to where it stays.

    A mapped file would count as memory beside the copies made from it. Raises `SafetensorError`
    or `OSError` for a file that is damaged or missing.
    """
    return read_tensors_and_metadata(path)[0]


def read_array(path: Path) -> Tensor:
    """The array of a `.npy` file, aligned; raises `ValueError` or `OSError` for a damaged one."""
    return aligned(torch.from_numpy(np.load(path, allow_pickle=False)))


def read_tensors_and_metadata(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `read_tensors` gives, and the texts in the file's header."""
    # It checks the header against the file; only what it has found right is read below.
    with safe_open(path, framework="pt") as file:
        names, about = list(file.keys()), file.metadata() or {}
    with path.open("rb") as stream:
        header_size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(header_size))
        return {name: _read(stream, 8 + header_size, header[name]) for name in names}, about


def _read(stream: BufferedReader, start: int, about: Mapping[str, Any]) -> Tensor:
    """One tensor; `start` is where the first of the file begins."""
    tensor = torch.empty(about["shape"], dtype=DTYPES[about["dtype"]])
    stream.seek(start + about["data_offsets"][0])
    if stream.readinto(tensor.reshape(-1).view(torch.uint8).numpy().data) != tensor.nbytes:
        raise OSError(f"{stream.name} ended before all of it was read")
    return tensor

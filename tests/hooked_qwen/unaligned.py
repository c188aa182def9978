"""Safetensors files whose tensors start anywhere: what a file may do, made to happen."""

import struct
from pathlib import Path

OFFSETS = range(4, 64, 4)


def shift(path: Path, by: int) -> None:
    """Pad the header of a safetensors file so that its data starts `by` bytes past a 64th."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = raw[8 : 8 + length].rstrip(b" ")
    header += b" " * ((by - 8 - len(header)) % 64)
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw[8 + length :])


def is_aligned(tensor) -> bool:
    return tensor.data_ptr() % 64 == 0 and tensor.is_contiguous()

"""What reading dictionaries will take: from files, and from the host where it keeps them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from circuits.runs.needs import Amount
from saes.formats.shapes import DictionaryShape
from saes.tiers import room_on_host

READ_AT_ONCE = 1 << 25
"Bytes of a file that are read, or moved to a device, to see how fast that is."


@dataclass(frozen=True)
class Disk:
    """Bytes a second."""

    read: float
    hashed: float


def disk_of(files: Sequence[Path]) -> Disk:
    """How fast the files are read now, from the disk or from the system's cache of it."""
    largest = max(files, key=lambda path: path.stat().st_size)
    start = time.perf_counter()
    with largest.open("rb") as stream:
        read = stream.read(READ_AT_ONCE)
    middle = time.perf_counter()
    sha256(read).digest()
    end = time.perf_counter()
    return Disk(len(read) / (middle - start), len(read) / (end - middle))


def dictionary_times(
    shapes: Sequence[DictionaryShape],
    again: int,
    memory: float | None,
    disk: Disk,
    device: torch.device,
) -> list[Amount]:
    """Seconds in which dictionaries are read, `again` so often where `memory` does not hold all.

    Those that the host keeps (`saes.tiers`) are moved from there again, in the type of their files.
    """
    stored, every = (sum(n) for n in zip(*((s.stored, s.bytes) for s in shapes), strict=True))
    once = (stored + every) / disk.read
    times = [Amount("dictionaries", once + stored / disk.hashed, "read once, and hashed")]
    if memory is None or every <= memory * 1e9:
        return times
    on_host = 0.0 if device.type == "cpu" else min(1.0, room_on_host() / max(stored, 1))
    if on_host:
        moved = again * on_host * stored / _moved(device)
        note = f"from the host's memory {again} times more for --memory"
        times.append(Amount("dictionaries", moved, note))
    if on_host < 1:
        note = f"read {again} times more for --memory"
        times.append(Amount("dictionaries", again * (1 - on_host) * once, note))
    return times


def _moved(device: torch.device) -> float:
    """Bytes a second from the host to a device."""
    values = torch.zeros(READ_AT_ONCE, dtype=torch.uint8)
    values[:1].to(device)
    start = time.perf_counter()
    # One byte comes back: only then is it known that all have gone.
    values.to(device)[:1].cpu()
    return READ_AT_ONCE / (time.perf_counter() - start)

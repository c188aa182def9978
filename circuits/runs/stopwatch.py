"""How long a command took, and how much memory it held."""

import sys
import time

import psutil


class Stopwatch:
    """Wall time since it was made, and the process's peak memory."""

    def __init__(self) -> None:
        self.start = time.perf_counter()

    def reading(self) -> dict[str, float]:
        return {
            "wall_seconds": round(time.perf_counter() - self.start, 2),
            "peak_memory_mb": round(peak_memory() / 2**20, 1),
        }


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    # No such module on Windows, and psutil knows no peak elsewhere.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""The clock, the memory and the name of what a benchmark runs on."""

import platform

import torch


def machine(device: str, threads: int) -> str:
    """What ran it, such as "x86_64, 2 threads", or the name of the card."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()}, {threads} threads"


def finish(device: str) -> None:
    """Wait until all that a device was asked for is done, before the clock is read."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize()


def forget_peak(device: str) -> int:
    """The bytes that tensors take on a card now; its peak counts from here on."""
    if torch.device(device).type != "cuda":
        return 0
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def peak(device: str) -> int:
    """The most bytes that tensors took on a card since then."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else 0

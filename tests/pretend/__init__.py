"""A device of torch called "pretend" that raises where CUDA would and counts what it waits for.

Importing this registers it; `build` compiles it once into the user's cache folder. Memory and
kernels are the CPU's, so results equal the CPU's bit for bit, but an operator raises when one of
its tensors is on the wrong device, and `watch` counts by call site what would make the host wait
for a device, or copy to it. Tests take it as the fixture `pretend`, which skips where it cannot
be built.

    model.to("pretend")
    with pretend.watch() as seen: ...            # a Counter of (kind, operator, file:line)
    with pretend.watch(forbid=("sync",)): ...    # raises at the first wait
    with pretend.lenient(): ...                  # notes wrong devices and goes on: all in one run
    with pretend.strict_index(): ...             # CPU index tensors raise (CUDA copies them)
    with pretend.first_accelerator(): ...        # what `--device auto` finds

What it cannot show: CUDA kernels that do not exist, limits of cuSPARSE, sums in another order,
TF32, memory, streams, autocast.
"""

import os
import sys
import types
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from tests.pretend.build import build

NAME = "pretend"
OUTSIDE = ("site-packages", "lib/python3", os.path.join("tests", "pretend", "__init__"), "<")

torch.utils.rename_privateuse1_backend(NAME)
_device: Any = build()
launches: Callable[[], int] = _device.launches
"How many operators have run on the device."


@contextmanager
def _switched(switch: Callable[[bool], bool]) -> Generator[None]:
    before = switch(True)
    try:
        yield
    finally:
        switch(before)


lenient = partial(_switched, _device.lenient)
strict_index = partial(_switched, _device.strict_index)
_found = False


@contextmanager
def first_accelerator() -> Generator[None]:
    """Let those find the device who ask torch for any accelerator.

    Hidden otherwise: a test that leaves the choice would depend on which tests ran before it.
    """
    global _found
    _found = True
    try:
        yield
    finally:
        _found = False


def _is_available() -> bool:
    asks = sys._getframe(1).f_globals["__name__"]
    return _found or asks != "torch.accelerator"


@contextmanager
def _current(device: Any) -> Generator[None]:
    yield


def _module() -> types.ModuleType:
    """What torch asks of `torch.pretend`."""
    generator = _device.default_generator()
    module = types.ModuleType(f"torch.{NAME}")
    module.__dict__.update(
        is_available=_is_available,
        is_initialized=lambda: True,
        device_count=lambda: 1,
        current_device=lambda: 0,
        set_device=lambda device: None,
        device=_current,
        synchronize=lambda device=None: None,
        _is_in_bad_fork=lambda: False,
        manual_seed=generator.manual_seed,
        manual_seed_all=generator.manual_seed,
        get_rng_state=lambda device=None: generator.get_state(),
        set_rng_state=lambda state, device=None: generator.set_state(state),
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
    )
    return module


torch._register_device_module(NAME, _module())
torch.utils.generate_methods_for_privateuse1_backend()


def _call_site() -> str:
    """File and line of the innermost frame that is neither torch's nor Python's."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if not any(part in name for part in OUTSIDE):
            return f"{os.path.relpath(name)}:{frame.f_lineno}"
        frame = frame.f_back
    return "backward's own thread"


class Seen(Counter[tuple[str, str, str]]):
    """How often each (kind, operator, call site) was seen.

    Kinds of waits begin with "sync"; the others are "host to device" (a copy), "slow" (a copy of
    an index on the host), "synchronize", and "wrong device" where the device is lenient.
    """

    def of(self, kind: str) -> "Seen":
        """Those whose kind begins with `kind`."""
        return Seen({key: n for key, n in self.items() if key[0].startswith(kind)})


@contextmanager
def watch(forbid: tuple[str, ...] = ()) -> Generator[Seen]:
    """Count what would make the host wait, or copy; raise on kinds that begin as in `forbid`."""
    seen = Seen()

    def note(kind: str, operator: str) -> None:
        seen[kind, operator, _call_site()] += 1
        if forbid and kind.startswith(forbid):
            raise RuntimeError(f"{kind} ({operator}) at {_call_site()}")

    _device.listen(note)
    try:
        yield seen
    finally:
        _device.listen(None)

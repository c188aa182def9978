"""A training step recorded once and then run again as a whole.

A step of usual size is a millisecond of work for a GPU, but the host needs several milliseconds
to launch its 150 kernels one by one. A recording (a CUDA graph) is launched at once.

A recording reads from the addresses that it was recorded with. So a batch is copied to one place,
numbers that change from step to step are tensors there, and there is a recording for each number
of tokens and length of the list of dead features, made when the two have been met before.
"""

from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from saes.training.step import ScratchMemory, number_like

WorkRecorder = Callable[[Callable[[], None]], Callable[[], None]]
"Gives what does the same on a device as some work, from the tensors as they then are."
MOST = 64
"Recordings of one dictionary; then the one that has not been used for longest goes."
SHORTEST = 32
"Features of the shortest list of dead ones; longer ones are powers of two."


@dataclass(frozen=True, kw_only=True)
class StepInputs:
    """What changes from step to step; of a recording the numbers are tensors, too."""

    x: Float[Tensor, "tokens d_source"]
    y: Float[Tensor, "tokens d_target"]
    "as the model gives them; the same tensor where source and target are one site"
    rate: float | Float[Tensor, ""]
    step: int | Tensor
    fvu_share: float | Float[Tensor, ""]
    "what this step's FVU counts in the running mean"
    average_share: float | Float[Tensor, ""]
    "what this step's weights count in their running mean"


class Recordings:
    """The recordings of one dictionary's steps."""

    def __init__(self, record: WorkRecorder, memory: ScratchMemory, like: Tensor) -> None:
        """`like` is a weight; `memory` is what the steps write into."""
        self._record, self._memory = record, memory
        self._met: set[tuple[int, int]] = set()
        self._made: OrderedDict[tuple[int, int], _Recording] = OrderedDict()
        self._rate = torch.zeros((), dtype=torch.float32, device=like.device)
        self._step = torch.zeros((), dtype=torch.long, device=like.device)
        self._fvu_share, self._average_share = number_like(0.0, like), like.new_zeros(())

    def run(
        self, work: Callable[[StepInputs, int], None], given: StepInputs, most: int, dead: int
    ) -> None:
        """Do the `work` of a step with a list of `dead` features, recorded where it can be.

        At most `most` tokens come in a batch.
        """
        key = (len(given.x), dead)
        if key not in self._met:
            # Makes all that lasts: the optimiser's state, memory.
            work(given, dead)
            self._met.add(key)
            return
        placed = self._placed(given, most)
        if key not in self._made:
            if len(self._made) == MOST:
                self._made.popitem(last=False)
            self._made[key] = self._recording(lambda: work(placed, dead), placed)
        self._made.move_to_end(key)
        self._made[key].replay()

    def _recording(self, work: Callable[[], None], placed: StepInputs) -> "_Recording":
        try:
            replay = self._record(work)
        except Exception as error:
            error.add_note(
                "A step was being recorded; while it is, it must not wait for its device."
            )
            raise
        return _Recording(replay, placed, self._memory.held())

    def forget(self) -> None:
        """For tensors that are other ones from now on."""
        self._made.clear()
        self._met.clear()

    def _placed(self, given: StepInputs, most: int) -> StepInputs:
        """The same where recordings read it."""
        x = self._copied("source", given.x, most)
        y = x if given.y is given.x else self._copied("target", given.y, most)
        return StepInputs(
            x=x,
            y=y,
            rate=self._rate.fill_(given.rate),
            step=self._step.fill_(given.step),
            fvu_share=self._fvu_share.fill_(given.fvu_share),
            average_share=self._average_share.fill_(given.average_share),
        )

    def _copied(
        self, use: str, rows: Float[Tensor, "tokens d"], most: int
    ) -> Float[Tensor, "tokens d"]:
        # Under a name of its own, memory of a size is never let go of for a larger one.
        place = self._memory.take(f"{use} of {most} x {rows.shape[1]}", most, rows.shape[1], rows)
        return place[: len(rows)].copy_(rows)


@dataclass(frozen=True)
class _Recording:
    replay: Callable[[], None]
    given: StepInputs
    memory: tuple[Tensor, ...]
    "what it writes into, kept even where others have gone over to larger memory"


def list_length(dead: int, width: int) -> int:
    """How long a list of `dead` of `width` features is, for few lengths in all."""
    if not dead:
        return 0
    return min(width, max(SHORTEST, 1 << (dead - 1).bit_length()))


def recorder(device: torch.device) -> WorkRecorder | None:
    """How steps are recorded on `device`; None: they are not, as nothing would be gained.

    Recordings of one recorder share the memory that steps need on their way: they run in turn.
    """
    if device.type != "cuda":
        return None
    with torch.cuda.device(device):
        stream, pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
    return _StepRecorder(
        stream, pool, _recorded(partial(torch.zeros, 1, device=device), stream, pool)
    )


@dataclass(frozen=True)
class _StepRecorder:
    stream: torch.cuda.Stream
    pool: Any
    kept: torch.cuda.CUDAGraph
    "torch gives up a pool of memory once no graph of it is left, so one graph always is"

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        return _recorded(work, self.stream, self.pool).replay


def _recorded(
    work: Callable[[], object], stream: torch.cuda.Stream, pool: Any
) -> torch.cuda.CUDAGraph:
    graph, current = torch.cuda.CUDAGraph(), torch.cuda.current_stream(stream.device)
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        # Other threads may go on asking for memory meanwhile.
        graph.capture_begin(pool=pool, capture_error_mode="thread_local")
        try:
            work()
        except BaseException:
            # It fails too then, and is not what went wrong.
            with suppress(RuntimeError):
                graph.capture_end()
            raise
        graph.capture_end()
    current.wait_stream(stream)
    return graph

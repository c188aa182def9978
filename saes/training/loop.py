"""The only training loop: SAEs and transcoders of every site, from one stream of activations.

Training happens in normalised units, `(x - mean) * scale` with mean squared norm d, and the
normalisation is folded into the weights at the end, so a trained dictionary takes and gives raw
activations and its decoder rows have unit norm.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor

from hooked_qwen.stream import ActivationBatch
from saes.architectures.table import architecture
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.training.calibration import calibrate
from saes.training.config import TrainConfig
from saes.training.recorded_step import WorkRecorder, recorder
from saes.training.step import ScratchMemory
from saes.training.trainer import DictionaryTrainer

BATCHES_FOR_MEAN = 8
CHECK_EVERY = 50
"Steps between two looks at whether losses are finite: a look waits for the device."


@dataclass(frozen=True)
class Progress:
    """What the loop reports after each step: averages over the dictionaries, and each of them.

    Asking for any of `dictionaries`, `loss`, `fvu`, `l0` and `dead` waits for the device once.
    """

    step: int
    steps: int
    tokens: int
    rate: float
    "the learning rate of this step"
    tokens_per_second: float
    "since training started or was taken up again, everything included"
    model_share: float
    "share of that time spent waiting for activations"
    shown: Mapping[str, Mapping[str, Tensor]] = field(repr=False)
    "loss, fvu, l0 and dead share of each, where they were computed"

    @cached_property
    def dictionaries(self) -> dict[str, dict[str, float]]:
        """The same as Python's numbers."""
        rows = torch.stack([torch.stack(list(of.values())).double() for of in self.shown.values()])
        return {
            name: dict(zip(of, row, strict=True))
            for (name, of), row in zip(self.shown.items(), rows.tolist(), strict=True)
        }

    @property
    def loss(self) -> float:
        return self._mean("loss")

    @property
    def fvu(self) -> float:
        return self._mean("fvu")

    @property
    def l0(self) -> float:
        return self._mean("l0")

    @property
    def dead(self) -> float:
        return self._mean("dead")

    def _mean(self, name: str) -> float:
        figures = self.dictionaries.values()
        return sum(of[name] for of in figures) / len(figures)


@dataclass(frozen=True)
class Trained:
    """A finished dictionary and the record of its training."""

    dictionary: SparseDictionary
    record: dict[str, Any]


@dataclass(frozen=True)
class Snapshot:
    """Everything that training after `step` steps depends on, but for the activations to come."""

    step: int
    tensors: dict[str, Tensor]
    "of every dictionary, as `NUMBER/NAME`"

    def of(self, number: int) -> dict[str, Tensor]:
        """The tensors of one dictionary."""
        start = f"{number}/"
        return {k.removeprefix(start): v for k, v in self.tensors.items() if k.startswith(start)}


def fit(
    batches: Iterable[ActivationBatch],
    specs: Sequence[DictionarySpec],
    *,
    config: TrainConfig,
    report: Callable[[Progress], None] | None = None,
    report_calibration: Callable[[int, int], None] = lambda done, total: None,
    keep: Callable[[Callable[[], Snapshot]], None] | None = None,
    after: Snapshot | None = None,
    record: Callable[[torch.device], WorkRecorder | None] = recorder,
) -> list[Trained]:
    """Train one dictionary for each of `specs` on the same stream of activations.

    The first batches set the normalisation and are trained on like the others; those that follow
    the last step set thresholds (`saes.training.calibration`). `keep` is called
    between steps with a function that takes a snapshot; training that starts `after` one, with
    `batches` from its step on, ends with the same weights, on a CPU bit for bit. `record` gives
    what records steps on a device (`saes.training.recorded_step`).

    Raises `ValueError` when the stream ends before `config.tokens`, `RuntimeError` when memory
    runs out, and `FloatingPointError` naming step and dictionary when a loss was not finite,
    which is looked for every 50 steps and before a snapshot.
    """
    for spec in specs:
        _check_trainable(spec, config)
    stream, clock = iter(batches), _Clock()
    with clock.waiting():
        first = list(islice(stream, 1 if after else BATCHES_FOR_MEAN))
    if not first:
        raise ValueError("no activations to train on: the text is shorter than one batch")
    size = len(next(iter(first[0].values.values())))
    steps = max(1, config.tokens // size)
    memory, recorded = ScratchMemory(), cache(record)
    trainers = [
        DictionaryTrainer.begin(
            spec,
            first,
            config,
            config.seed + n,
            memory,
            recorded(first[0].values[spec.source].device),
        )
        for n, spec in enumerate(specs)
    ]
    begin = after.step if after else 0
    if after:
        for n, trainer in enumerate(trainers):
            trainer.restore(after.of(n))
    batch, stream = first[0], chain(_in_turn(first), stream)
    for step in range(begin, steps):
        with _out_of_memory_named(step):
            with clock.waiting():
                batch = _next(stream, step, steps, size)
            rate = config.peak_rate * schedule(step, steps, config)
            for trainer in trainers:
                trainer.train_step(batch, rate, step)
        if (step + 1) % CHECK_EVERY == 0 or step + 1 == steps:
            _check_finite(trainers)
        if report is not None:
            report(_progress(trainers, step + 1, steps, size, rate, clock, begin))
        # Until then the stream has been read further than the step count says.
        if keep is not None and step + 1 >= BATCHES_FOR_MEAN:
            keep(lambda done=step + 1: _snapshot(trainers, done))
    with _out_of_memory_named(steps):
        calibrate(trainers, stream, last=batch, tokens=steps * size, report=report_calibration)
    return [Trained(t.finish(), t.record() | {"tokens": steps * size}) for t in trainers]


def schedule(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the highest learning rate: linear warm-up, constant, linear decay to zero."""
    rising = (step + 1) / max(1.0, config.warmup * steps)
    falling = (steps - step) / max(1.0, config.decay * steps)
    return min(1.0, rising, falling)


def _check_trainable(spec: DictionarySpec, config: TrainConfig) -> None:
    if spec.signed:
        raise ValueError(f"{spec.name}: dictionaries with negative features are not trained")
    how = architecture(spec.architecture)
    if how.needs_k and spec.k is None:
        raise ValueError(f"{spec.name}: {spec.architecture} is trained with a k, the average")
    if spec.k is not None and not 0 < spec.k <= config.width:
        raise ValueError(f"{spec.name}: k is {spec.k}, expected 1 to {config.width}, the width")
    if config.prefixes and how.nested is None:
        raise ValueError(f"{spec.name}: {spec.architecture} has no prefixes; matryoshka has")


def _in_turn(batches: list[ActivationBatch]) -> Iterator[ActivationBatch]:
    """One after another; the list lets go of each as it is given, for all are a buffer large."""
    while batches:
        yield batches.pop(0)


def _next(stream: Iterator[ActivationBatch], step: int, steps: int, size: int) -> ActivationBatch:
    batch = next(stream, None)
    if batch is None:
        raise ValueError(
            f"the text gave {step * size} activations, but {steps * size} were asked for: "
            "give more text or ask for fewer tokens"
        )
    return batch


@contextmanager
def _out_of_memory_named(step: int) -> Iterator[None]:
    """Say at which step memory ran out, and what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "alloc" in str(error):
            raise RuntimeError(
                f"out of memory at step {step}: train fewer layers at once, or with a smaller "
                "width, batch or buffer; the last checkpoint is kept"
            ) from error
        raise


@dataclass
class _Clock:
    """Time since the start, and how much of it went by waiting for activations."""

    start: float = field(default_factory=time.perf_counter)
    waited: float = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.waited += time.perf_counter() - begin

    def seconds(self) -> float:
        return time.perf_counter() - self.start


def _progress(
    trainers: Sequence[DictionaryTrainer],
    step: int,
    steps: int,
    size: int,
    rate: float,
    clock: _Clock,
    begin: int,
) -> Progress:
    seconds = max(clock.seconds(), 1e-9)
    return Progress(
        step,
        steps,
        step * size,
        rate,
        tokens_per_second=(step - begin) * size / seconds,
        model_share=clock.waited / seconds,
        shown={trainer.spec.name: trainer.watched.shown for trainer in trainers},
    )


def _check_finite(trainers: Sequence[DictionaryTrainer]) -> None:
    for trainer in trainers:
        trainer.check_finite()


def _snapshot(trainers: Sequence[DictionaryTrainer], step: int) -> Snapshot:
    # The last good checkpoint must not be replaced by a broken one.
    _check_finite(trainers)
    tensors = {
        f"{n}/{name}": value
        for n, trainer in enumerate(trainers)
        for name, value in trainer.state().items()
    }
    return Snapshot(step, tensors)

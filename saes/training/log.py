"""The log of a training run: JSON lines always, TensorBoard and Weights & Biases when asked for."""

import importlib
import json
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saes.training.loop import Progress

LOG = "training.jsonl"
LOG_EVERY = 50
"steps"
LOGS = ("tensorboard", "wandb")
Log = Callable[[Progress], None]


@dataclass(frozen=True)
class _Sink:
    write: Callable[[int, dict[str, Any]], None]
    close: Callable[[], None] = lambda: None


@contextmanager
def open_log(folder: Path, others: Sequence[str], *, after_step: int) -> Generator[Log, None, None]:
    """A function that logs every 50th step to `folder/training.jsonl` and to the `others`.

    The others write below `folder` too, each to a folder of its name. Lines later than
    `after_step`, of a run that was cut off, are dropped. Raises `ValueError` for a log that is
    unknown or whose package is not installed.
    """
    if not after_step:
        for name in LOGS:
            shutil.rmtree(folder / name, ignore_errors=True)
    path = folder / LOG
    kept = [] if not path.exists() else path.read_text().splitlines()
    kept = [line for line in kept if _step(line) <= after_step]
    path.write_text("".join(f"{line}\n" for line in kept))
    sinks = [_jsonl(path), *(_other(name, folder, after_step) for name in others)]

    def log(now: Progress) -> None:
        if now.step % LOG_EVERY and now.step != now.steps:
            return
        for sink in sinks:
            sink.write(now.step, _record(now))

    try:
        yield log
    finally:
        for sink in sinks:
            sink.close()


def last_line(folder: Path) -> dict[str, Any]:
    """What the log of a finished run in `folder` ends with."""
    return json.loads((folder / LOG).read_text().splitlines()[-1])


def _record(now: Progress) -> dict[str, Any]:
    return {
        "step": now.step,
        "tokens": now.tokens,
        "learning_rate": now.rate,
        "tokens_per_second": round(now.tokens_per_second, 1),
        "model_share": round(now.model_share, 4),
        "dictionaries": {name: dict(figures) for name, figures in now.dictionaries.items()},
    }


def _step(line: str) -> int | float:
    """The step of a line; infinite for one that a killed process wrote half."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _jsonl(path: Path) -> _Sink:
    def write(step: int, record: dict[str, Any]) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    return _Sink(write)


def _other(name: str, folder: Path, after_step: int) -> _Sink:
    if name not in LOGS:
        raise ValueError(f"no log is called {name!r}: expected one of {', '.join(LOGS)}")
    module = "torch.utils.tensorboard" if name == "tensorboard" else "wandb"
    try:
        package = importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"logging to {name} needs its package: pip install 'qwen-circuits[{name}]'"
        ) from None
    if name == "wandb":
        run = package.init(project="qwen-circuits", dir=str(folder), name=folder.name)
        return _Sink(lambda step, record: run.log(_flat(record), step=step), run.finish)
    # What a run that was cut off logged later than its checkpoint is not shown.
    writer = package.SummaryWriter(str(folder / name), purge_step=after_step + 1)

    def write(step: int, record: dict[str, Any]) -> None:
        for key, value in _flat(record).items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return _Sink(write, writer.close)


def _flat(record: dict[str, Any]) -> dict[str, int | float]:
    """One number a key: `mlp_out.3/fvu`."""
    numbers = {key: value for key, value in record.items() if key not in ("step", "dictionaries")}
    for name, figures in record["dictionaries"].items():
        numbers |= {f"{name}/{key}": value for key, value in figures.items()}
    return numbers

"""The log of a training run: JSON lines always, TensorBoard and Weights & Biases when asked for."""

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from saes.training import Progress

LOG = "training.jsonl"
LOG_EVERY = 50
"steps"
LOGS = ("tensorboard", "wandb")
Log = Callable[[Progress], None]


def open_log(folder: Path, others: Sequence[str], *, after_step: int) -> Log:
    """A function that logs every 50th step to `folder/training.jsonl` and to the `others`.

    Lines later than `after_step`, of a run that was cut off, are dropped. Raises `ValueError` for
    a log that is unknown or whose package is not installed.
    """
    path = folder / LOG
    kept = [] if not path.exists() else path.read_text().splitlines()
    kept = [line for line in kept if _step(line) <= after_step]
    path.write_text("".join(f"{line}\n" for line in kept))
    sinks = [_jsonl(path), *(_sink(name, folder) for name in others)]

    def log(now: Progress) -> None:
        if now.step % LOG_EVERY and now.step != now.steps:
            return
        for sink in sinks:
            sink(now.step, _record(now))

    return log


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


def _jsonl(path: Path) -> Callable[[int, dict[str, Any]], None]:
    def write(step: int, record: dict[str, Any]) -> None:
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    return write


def _sink(name: str, folder: Path) -> Callable[[int, dict[str, Any]], None]:
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
        return lambda step, record: run.log(_flat(record), step=step)
    writer = package.SummaryWriter(str(folder / "tensorboard"))

    def write(step: int, record: dict[str, Any]) -> None:
        for key, value in _flat(record).items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return write


def _flat(record: dict[str, Any]) -> dict[str, int | float]:
    """One number a key: `mlp_out.3/fvu`."""
    numbers = {key: value for key, value in record.items() if key not in ("step", "dictionaries")}
    for name, figures in record["dictionaries"].items():
        numbers |= {f"{name}/{key}": value for key, value in figures.items()}
    return numbers

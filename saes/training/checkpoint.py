"""Checkpoints of training: one file, whole or not there, that a later process goes on from."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from hooked_qwen.files import write_atomically
from hooked_qwen.tensor_files import read_tensors_and_metadata
from hooked_qwen.texts_read import Position
from saes.training.loop import Snapshot


@dataclass
class Checkpointer:
    """Writes a snapshot to `path` when the last one is older than `every` seconds."""

    path: Path
    every: float
    identity: Mapping[str, Any]
    "what the run is; a run that is anything else must not go on from it"
    position: Callable[[], Position | None] = lambda: None
    "how far the text has been read, where it comes from text"
    last: float = field(default_factory=time.monotonic)

    def __call__(self, snapshot: Callable[[], Snapshot]) -> None:
        if time.monotonic() - self.last < self.every:
            return
        taken = snapshot()
        position = self.position()
        about = {
            "step": str(taken.step),
            "identity": json.dumps(self.identity, sort_keys=True),
            "position": json.dumps(position and asdict(position)),
        }
        write_atomically(
            self.path, lambda partial: save_file(taken.tensors, partial, metadata=about)
        )
        self.last = time.monotonic()


def read_snapshot(path: Path, identity: Mapping[str, Any]) -> tuple[Snapshot, Position | None]:
    """The snapshot in `path`, and how far the text had been read by then.

    Raises `ValueError` when the file is broken, or was written by a run with another `identity`,
    naming what differs.
    """
    try:
        tensors, about = read_tensors_and_metadata(path)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is not a readable checkpoint: {error}") from None
    was, now = json.loads(about["identity"]), json.loads(json.dumps(identity))
    # Checkpoints of earlier versions say less of what they are.
    differing = [name for name in now if name in was and was[name] != now[name]]
    if differing:
        told = "; ".join(f"{n} was {was[n]!r}, is {now[n]!r}" for n in differing)
        raise ValueError(f"{path} is of another training run: {told}")
    position = json.loads(about.get("position", "null"))
    return Snapshot(int(about["step"]), tensors), Position(**position) if position else None

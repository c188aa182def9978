"""Other libraries beside ours: an environment for each, and a process that answers from inside it.

A process first says in a line of JSON what it is, then answers each line it is given with another.
"""

import json
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import torch


def environment(folder: Path, requirement: str) -> Path:
    """The Python of an environment with `requirement` and the release of torch that we run."""
    python = folder / "bin" / "python"
    if not python.exists():
        print(f"installing {requirement}", file=sys.stderr)
        venv.create(folder, with_pip=True)
        release = f"torch=={torch.__version__.partition('+')[0]}"
        pip = [str(python), "-m", "pip"]
        subprocess.run([*pip, "install", "-q", release], check=True)
        subprocess.run([*pip, "install", "-q", release, requirement], check=True)
    return python


class Peer:
    """A process of one library."""

    def __init__(self, requests: IO[str], replies: IO[str]) -> None:
        self.requests, self.replies = requests, replies
        self.about: dict[str, Any] = self._reply()

    def ask(self, line: str) -> dict[str, float]:
        """What it answers to a line."""
        print(line, file=self.requests, flush=True)
        return self._reply()

    def _reply(self) -> Any:
        line = self.replies.readline()
        if not line:
            raise SystemExit("a library's process ended early; what it said is above")
        return json.loads(line)


@contextmanager
def started(command: list[str]) -> Iterator[Peer]:
    """The process of a command, until the block ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        yield Peer(cast(IO[str], process.stdin), cast(IO[str], process.stdout))

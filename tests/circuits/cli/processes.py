"""Commands as processes of their own, without each importing torch and transformers again."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORKING = """
import gc, json, os, sys
# What is imported stays.
gc.disable()
import pytest, torch
from circuits.cli.app import main
from tests.circuits.few_texts import shorten
import circuits.runs.discover_run, circuits.suites, saes.training.train
gc.freeze()
gc.enable()

# As commands are called in the tests' own process.
torch.set_num_threads(1)
shorten(pytest.MonkeyPatch())

for line in sys.stdin:
    child = os.fork()
    if not child:
        into, *arguments = json.loads(line)
        said = os.open(into, os.O_WRONLY | os.O_CREAT)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.argv = ["circuits", *arguments]
        try:
            main()
        except SystemExit as ended:
            # All the modules are not taken apart one by one.
            if isinstance(ended.code, int):
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(ended.code)
            raise
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
os._exit(0)
"""


class Processes:
    """Runs one command at a time in a copy of a process that has imported all it needs."""

    def __init__(self) -> None:
        self.parent = subprocess.Popen(
            [sys.executable, "-c", FORKING],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, *arguments: object, into: str | Path = os.devnull) -> int:
        """The number of a process that has begun with a command; what it says goes to a file."""
        assert self.parent.stdin is not None
        self.parent.stdin.write(json.dumps([str(each) for each in (into, *arguments)]) + "\n")
        self.parent.stdin.flush()
        return self._said()

    def ended(self) -> int:
        """Wait for it: its exit code, or less than zero where a signal ended it."""
        return self._said()

    def _said(self) -> int:
        assert self.parent.stdout is not None
        return int(self.parent.stdout.readline())


@contextmanager
def processes() -> Iterator[Processes]:
    found = Processes()
    with found.parent:
        yield found
        assert found.parent.stdin is not None
        found.parent.stdin.close()

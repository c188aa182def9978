"""Progress on standard error: bars on a terminal, a plain line every thirty seconds elsewhere."""

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

from circuits.cli.tables import console
from hooked_qwen.progress import Report, silent

EVERY = 30.0
"Seconds between plain lines."
WORTH_A_LINE = 2.0
"Seconds: what takes less ends without a line."
LOOK = 1.0
"Seconds between looks at the clock, for steps that take longer than the time between two lines."


@contextmanager
def bars(*, every: float = EVERY, look: float = LOOK) -> Generator[Report, None, None]:
    """Yield a report that shows what is being done, how much of it, and the time left.

    It shows nothing under `--quiet`. On no terminal it writes a line `every` seconds, and looks at
    the clock every `look` seconds.
    """
    if console.quiet:
        yield silent
        return
    with _drawn() if sys.stderr.isatty() else _printed(every, look) as report:
        yield report


@contextmanager
def _drawn() -> Generator[Report, None, None]:
    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=12),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        # On a narrow terminal the note is cut, not the numbers before it.
        TextColumn(
            "{task.fields[note]}",
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        ),
    )
    progress = Progress(*columns, console=Console(stderr=True), expand=True)
    tasks: dict[str, TaskID] = {}

    def report(what: str, done: int, total: int, note: str = "") -> None:
        if not tasks:
            progress.start()
        if what not in tasks:
            tasks[what] = progress.add_task(what, total=total, note=note)
        progress.update(tasks[what], completed=done, total=total, note=note)

    try:
        yield report
    finally:
        if tasks:
            progress.stop()


@contextmanager
def _printed(every: float, look: float) -> Generator[Report, None, None]:
    lines = PlainLines(lambda line: print(line, file=sys.stderr, flush=True), every=every)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(look):
            lines.tick()

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield lines.report
    finally:
        over.set()
        watching.join()
        lines.end()


@dataclass
class _Task:
    """One thing being done, from when it was first told of."""

    what: str
    start: float
    first: int
    "what was done already then, such as by a run that is taken up again"
    done: int
    total: int
    note: str

    def line(self, now: float) -> str:
        share = self.done / self.total if self.total else 1.0
        parts = [f"{self.what} {self.done:,}/{self.total:,} ({share:.0%})"]
        seconds, new = now - self.start, self.done - self.first
        if self.done >= self.total:
            parts.append(f"done in {_span(seconds)}")
        else:
            parts.append(f"{_span(seconds)} so far")
        if new and seconds:
            parts.append(_pace(new / seconds))
            if self.done < self.total:
                parts.append(f"{_span((self.total - self.done) * seconds / new)} left")
        return ", ".join(parts) + (f"; {self.note}" if self.note else "")


class PlainLines:
    """A report that writes a line `every` so many seconds, and one when a thing is done."""

    def __init__(
        self,
        write: Callable[[str], object],
        clock: Callable[[], float] = time.monotonic,
        *,
        every: float = EVERY,
    ) -> None:
        self._write, self._clock, self._every = write, clock, every
        self._last = clock()
        self._task: _Task | None = None
        self._lock = threading.Lock()

    def report(self, what: str, done: int, total: int, note: str = "") -> None:
        """Take note of what is done; see `Report`."""
        with self._lock:
            now, task = self._clock(), self._task
            if task is None or task.what != what or done < task.done:
                if task is not None and task.done < task.total:
                    self._finish(now)
                self._task = task = _Task(what, now, done, done, total, note)
            was_done = task.done >= task.total
            task.done, task.total, task.note = done, total, note
            if done >= total and not was_done:
                self._finish(now)
            elif not was_done:
                self._show_if_due(now)

    def tick(self) -> None:
        """Write the line that is due, if one is: nothing may have been reported for long."""
        with self._lock:
            if self._task is not None and self._task.done < self._task.total:
                self._show_if_due(self._clock())

    def end(self) -> None:
        """Write a last line for what stopped half-way."""
        with self._lock:
            if self._task is not None and self._task.done < self._task.total:
                self._finish(self._clock())

    def _show_if_due(self, now: float) -> None:
        if self._task is not None and now - self._last >= self._every:
            self._show(self._task, now)

    def _finish(self, now: float) -> None:
        task = self._task
        if task is not None and now - task.start >= WORTH_A_LINE:
            self._show(task, now)

    def _show(self, task: _Task, now: float) -> None:
        self._last = now
        self._write(task.line(now))


def _span(seconds: float) -> str:
    """1:05 or 2:03:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _pace(rate: float) -> str:
    return f"{rate:,.1f} a second" if rate >= 1 else f"{1 / rate:,.1f} s each"

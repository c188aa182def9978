"""Progress bars on standard error, one line for each thing being done."""

import sys
from collections.abc import Generator
from contextlib import contextmanager

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

from circuits.report import Report


@contextmanager
def bars() -> Generator[Report, None, None]:
    """Yield a report that draws one bar for each thing being done, with the time left."""
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
    width = None if sys.stderr.isatty() else 110
    console = Console(stderr=True, width=width)
    progress = Progress(*columns, console=console, expand=True)
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

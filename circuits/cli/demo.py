"""The verb that does the whole main job."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import (
    Device,
    Force,
    Memory,
    ModelDtype,
    Quiet,
    Seed,
    Threads,
    command_line,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console


def demo(
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo"),
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """The whole main job on the bundled model: train, discover, verify, ablate, render.

    Example: `circuits demo --out demo`
    """
    from circuits.demo import run_demo

    placement = placed(device, dtype, memory)
    with bars() as report:
        lines = run_demo(
            out,
            force=force,
            seed=seed,
            placement=placement,
            command=command_line(),
            report=report,
        )
    for line in lines:
        console.print(line, highlight=False)

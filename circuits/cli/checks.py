"""The verbs for checks of whole circuits: specificity, stability."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.check_tables import specificity_table, stability_table
from circuits.cli.options import (
    Device,
    Force,
    Memory,
    ModelDtype,
    Quiet,
    RunFolder,
    Seed,
    SeedOfRun,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.runs import To
from circuits.cli.tables import say


def specificity(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, two or more, of one model.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    features: Annotated[
        int | None,
        typer.Option(help="Features of each circuit; by default as many as the smallest has."),
    ] = None,
    to: Annotated[
        To | None, typer.Option(help="What cut features are set to: by default as for verify.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Random circuits.")] = 3,
    seed: Seed = 0,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Cut every task's circuit on every task: does another's hurt as much as its own?

    Example: `circuits specificity agreement ioi greater_than --out specificity`
    """
    from circuits.runs.checks import FIGURES, MATRIX, specificity_run
    from circuits.verification.specificity import SpecificityConfig

    placement = placed(device, dtype, memory)
    at_least(1, features=features, draws=draws)
    config = SpecificityConfig(size=features, to=to.value if to else None, draws=draws, seed=seed)
    with bars() as report:
        record = specificity_run(
            runs, out, config=config, force=force, placement=placement, report=report
        )
    specificity_table(record)
    say(f"record {out / MATRIX}\nfigure {', '.join(str(out / name) for name in FIGURES)}")


def stability(
    run: RunFolder,
    resamples: Annotated[
        int, typer.Option(help="Draws of the prompts on which nodes are chosen anew.")
    ] = 200,
    reruns: Annotated[int, typer.Option(help="Draws on which the whole graph is found anew.")] = 3,
    estimators: Annotated[
        str | None,
        typer.Option(help="Others to hold the nodes against, with commas; by default the cheap."),
    ] = None,
    seed: SeedOfRun = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Is the circuit found again on other draws of the prompts, and by other estimators?

    Example: `circuits stability run`
    """
    from circuits.runs.checks import STABILITY, stability_run
    from circuits.runs.folder import read_run
    from circuits.verification.stability import CHEAP, StabilityConfig

    placement = placed(device, dtype, memory)
    at_least(2, resamples=resamples)
    config = StabilityConfig(
        resamples=resamples,
        reruns=reruns,
        estimators=CHEAP if estimators is None else tuple(estimators.split(",")),
        seed=read_run(run).seed if seed is None else seed,
    )
    with bars() as report:
        record = stability_run(run, config=config, force=force, placement=placement, report=report)
    stability_table(record)
    say(f"record {run / STABILITY}")

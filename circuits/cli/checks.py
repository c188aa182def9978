"""The verbs for checks of whole circuits: specificity, stability, sufficiency."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.check_tables import specificity_table, stability_table, sufficiency_table
from circuits.cli.discovery import MetricOf, Positions, SkipUnfit
from circuits.cli.options import (
    IG,
    BaselineValue,
    Bos,
    BosUsed,
    Device,
    DictionariesToUse,
    EstimatorUsed,
    Force,
    Layers,
    Memory,
    Mlp,
    Model,
    ModelDtype,
    OutFolder,
    Quiet,
    ReferenceUsed,
    RunFolder,
    Seed,
    SeedOfRun,
    Threads,
    at_least,
    placed,
    say_found,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import say


def specificity(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, two or more, of one model.")],
    out: OutFolder,
    features: Annotated[
        int | None,
        typer.Option(help="Features of each circuit; by default as many as the smallest has."),
    ] = None,
    to: Annotated[
        BaselineValue | None,
        typer.Option(help="What cut features are set to: by default as for verify."),
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
        typer.Option(help="Estimators to compare with, with commas; by default the cheap."),
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
    from circuits.runs.finished_run import read_run
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


class ErrorBaseline(StrEnum):
    out = "out"
    held = "held"


def sufficiency(
    prompts: Annotated[Path, typer.Argument(help="Prompt file, as for discover.")],
    out: OutFolder,
    model: Model = "bundled",
    dictionaries: DictionariesToUse = "bundled",
    layers: Layers = "all",
    metric: MetricOf = "logit-difference",
    errors: Annotated[
        ErrorBaseline,
        typer.Option(
            help="What transcoders miss of their MLPs: left out, or held as on the clean prompt."
        ),
    ] = ErrorBaseline.out,
    to: ReferenceUsed = None,
    estimator: EstimatorUsed = IG,
    positions: Annotated[
        Positions,
        typer.Option(help="Where a feature is kept: at every token (sum), or at one (keep, end)."),
    ] = Positions.sum,
    sizes: Annotated[
        str | None, typer.Option(help="Numbers of features, such as 1,5,20; all come last.")
    ] = None,
    bos: BosUsed = Bos.auto,
    skip_unfit: SkipUnfit = False,
    draws: Annotated[int, typer.Option(help="Random choices of features.")] = 3,
    seed: Seed = 0,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """How many features does a task need? MLPs replaced by transcoders, the strongest kept.

    Example: `circuits sufficiency prompts.jsonl --metric probability-difference --to zero
    --layers 2-4 --out sufficiency`
    """
    from circuits.discovery.config import DiscoverConfig
    from circuits.metrics.readout import read_metric
    from circuits.prompts import read_prompts
    from circuits.runs.inputs import Inputs
    from circuits.runs.prompt_sets import reference_for
    from circuits.runs.sufficiency_run import FIGURES, RECORD, sufficiency_run
    from circuits.verification.faithfulness_curves import SIZES
    from circuits.verification.sufficiency import SufficiencyConfig

    placement = placed(device, dtype, memory)
    at_least(1, draws=draws)
    config = DiscoverConfig(
        metric=read_metric(metric),
        estimator=estimator.value,
        positions=positions.value,
        bos=bos.value,
        reference=to.value if to else reference_for(read_prompts(prompts)),
    )
    kept = SufficiencyConfig(
        errors=errors.value,
        sizes=SIZES if sizes is None else numbers_of(sizes),
        draws=draws,
        seed=seed,
    )
    unfit = "skip" if skip_unfit else "refuse"
    inputs = Inputs.resolved(model, dictionaries, prompts, "transcoder", unfit)
    say_found(dictionaries, Mlp.transcoder)
    with bars() as report:
        record = sufficiency_run(
            inputs,
            out,
            config=config,
            kept=kept,
            layers=layers,
            force=force,
            placement=placement,
            report=report,
        )
    sufficiency_table(record)
    say(f"record {out / RECORD}\nfigure {', '.join(str(out / name) for name in FIGURES)}")


def numbers_of(text: str) -> tuple[int, ...]:
    """`1,5,20` as numbers; `ValueError` for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"--sizes is {text!r}: expected numbers of features, such as 1,5,20")
    return tuple(map(int, parts))

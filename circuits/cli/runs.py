"""The verbs for runs: verify, ablate, compare."""

import hashlib
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.estimate import print_estimate
from circuits.cli.options import (
    BaselineValue,
    Device,
    DryRun,
    Force,
    Memory,
    ModelDtype,
    Quiet,
    RunFolder,
    SeedOfRun,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import (
    ablation_table,
    comparison_table,
    console,
    edited_circuit_table,
    verification_table,
)


class Level(StrEnum):
    full = "full"
    quick = "quick"


def verify(
    run: RunFolder,
    to: Annotated[
        BaselineValue | None,
        typer.Option(help="What ablated nodes are set to: mean, or zero for one lone prompt."),
    ] = None,
    held_out: Annotated[
        Path | None, typer.Option(help="Other prompts of the task to hold the circuit against.")
    ] = None,
    graph: Annotated[
        Path | None,
        typer.Option(help="An edited graph, in place of the run's: its edges too."),
    ] = None,
    level: Annotated[
        Level,
        typer.Option(
            help="How much is checked; quick: nodes, edges and three sizes, few controls."
        ),
    ] = Level.full,
    dry_run: DryRun = False,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: SeedOfRun = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Hold a run against exact ablation: its nodes, its edges, and the circuit as a whole.

    A replacement graph also against interventions with attention, norms and features held in turn.

    Example: `circuits verify run`

    Example: `circuits verify run --graph edited.json`

    Example: `circuits verify run --dry-run`
    """
    from circuits.runs.finished_run import read_run
    from circuits.runs.verify_run import verify_run
    from circuits.verification.verify import VerifyConfig

    placement = placed(device, dtype, memory)
    config = VerifyConfig(
        to=to.value if to else None,
        level=level.value,
        seed=read_run(run).seed if seed is None else seed,
    )
    if dry_run:
        from circuits.runs.estimate_checks import estimate_verification

        if graph is not None:
            raise ValueError("--dry-run tells what checking the run's own graph takes: no --graph")
        print_estimate(
            estimate_verification(run, config=config, held_out=held_out, placement=placement)
        )
        return
    if graph is not None:
        from circuits.runs.edits import verify_edited_graph

        with bars() as report:
            found, into = verify_edited_graph(
                run,
                graph,
                config=config,
                held_out=held_out,
                force=force,
                placement=placement,
                report=report,
            )
        edited_circuit_table(found)
        console.print(f"record {into / 'verification.json'}", highlight=False)
        return
    with bars() as report:
        record = verify_run(
            run,
            config=config,
            held_out=held_out,
            force=force,
            placement=placement,
            report=report,
        )
    verification_table(record)
    console.print(
        f"record {run / 'verification.json'}\npage   {run / 'graph.html'}", highlight=False
    )


def ablate(
    run: RunFolder,
    features: Annotated[
        str | None, typer.Option(help="Features, such as 'mlp_out.3/812,resid_post.5/17@4'.")
    ] = None,
    top: Annotated[int | None, typer.Option(help="The graph's n strongest features.")] = None,
    outside: Annotated[
        bool, typer.Option("--outside", help="Everything outside the graph.")
    ] = False,
    to: Annotated[
        BaselineValue, typer.Option(help="What ablated nodes are set to.")
    ] = BaselineValue.zero,
    prompts: Annotated[Path | None, typer.Option(help="Other prompts to rerun.")] = None,
    name: Annotated[str | None, typer.Option(help="Folder under RUN/ablations.")] = None,
    dry_run: DryRun = False,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: SeedOfRun = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Cut features out, rerun the prompts, and find the graph that is left.

    Example: `circuits ablate run --features "mlp_out.3/812,resid_post.4/17"`
    """
    from circuits.runs.ablate_run import ablate_run

    placement = placed(device, dtype, memory)
    if sum([features is not None, top is not None, outside]) != 1:
        raise ValueError("say what to ablate with one of --features, --top or --outside")
    if dry_run:
        from circuits.runs.estimate_checks import estimate_ablation

        nodes = {"features": features, "top": top, "outside": outside}
        print_estimate(
            estimate_ablation(run, **nodes, to=to.value, prompts=prompts, placement=placement)
        )
        return
    label = _ablation_name(features, top, to, prompts, seed) if name is None else name
    with bars() as report:
        result = ablate_run(
            run,
            features=features,
            top=top,
            outside=outside,
            to=to.value,
            label=label,
            prompts=prompts,
            seed=seed,
            force=force,
            placement=placement,
            report=report,
        )
    ablation_table(result)
    console.print(f"result {run / 'ablations' / label}", highlight=False)


def _ablation_name(
    features: str | None, top: int | None, to: BaselineValue, prompts: Path | None, seed: int | None
) -> str:
    """A folder name that differs where the ablated nodes, their value or the prompts do."""
    if features is None:
        chosen = "outside" if top is None else f"top-{top}"
    else:
        readable = re.sub(r"[^A-Za-z0-9_.@-]+", "-", features).strip("-")[:40]
        chosen = f"{readable}-{hashlib.sha256(features.encode()).hexdigest()[:6]}"
    parts = [chosen, to.value]
    if prompts is not None:
        parts.append(f"on-{re.sub(r'[^A-Za-z0-9_]+', '-', prompts.stem).strip('-')[:20]}")
    if seed is not None:
        parts.append(f"seed-{seed}")
    return "-".join(parts)


def compare(
    run_a: Annotated[
        Path, typer.Argument(help="A run, an ablation's or a rerun's folder, or a graph.")
    ],
    run_b: Annotated[Path, typer.Argument(help="The run, folder or graph to compare with it.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("compare.html"),
    rows: Annotated[int, typer.Option(help="Rows to print.")] = 20,
    force: Force = False,
) -> None:
    """What changed between two graphs, as a table and as one page.

    Example: `circuits compare run run/ablations/top-5-zero --out compare.html`

    Example: `circuits compare run rerun`
    """
    from circuits.runs.compare_runs import compare_runs, names_of
    from circuits.runs.pages import named_graph

    at_least(1, rows=rows)
    changes = compare_runs(run_a, run_b, out, force=force)
    graphs = named_graph(run_a), named_graph(run_b)
    comparison_table(changes, names_of(run_a, run_b), graphs, shown=rows)
    console.print(f"page {out}", highlight=False)

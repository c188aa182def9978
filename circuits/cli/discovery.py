"""The verb that finds a circuit."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from circuits.cli.estimate import estimated, print_estimate
from circuits.cli.options import (
    IG,
    Bos,
    BosUsed,
    Device,
    DictionariesToUse,
    DryRun,
    EdgeSteps,
    EstimatorUsed,
    Force,
    GraphMethod,
    Memory,
    Mlp,
    MlpUsed,
    Model,
    ModelDtype,
    MostTargets,
    Quiet,
    ReferenceUsed,
    Seed,
    Threads,
    command_line,
    placed,
    say_found,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import (
    console,
    discovery_summary,
)

if TYPE_CHECKING:
    from circuits.prompt_files import Prompt


class Positions(StrEnum):
    keep = "keep"
    end = "end"
    sum = "sum"


MetricOf = Annotated[
    str,
    typer.Option(
        help="What the circuit is a circuit of: logit-difference, log-probability, "
        "probability-difference, kl, a feature's activation as feature:SITE/INDEX[@POSITION], or "
        "what a linear probe reads as readout:SITE[@POSITION or @mean]:FILE (.npy or .safetensors)."
    ),
]
SkipUnfit = Annotated[
    bool, typer.Option("--skip-unfit", help="Leave out prompts that do not fit the tokenizer.")
]


def discover(
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    prompts: Annotated[
        Path | None,
        typer.Argument(
            help="Prompt file, JSON Lines or CSV, with the fields of docs/circuits.md, Prompts.",
            show_default=False,
        ),
    ] = None,
    clean: Annotated[str | None, typer.Option(help="One prompt, in place of a file.")] = None,
    patch: Annotated[
        str | None, typer.Option(help="The counterpart of --clean, of the same length.")
    ] = None,
    answer: Annotated[
        list[str] | None,
        typer.Option(help="A right answer to --clean, repeatable; by default the model's own."),
    ] = None,
    wrong: Annotated[
        list[str] | None,
        typer.Option(
            help="A wrong answer to --clean, repeatable; by default the whole vocabulary."
        ),
    ] = None,
    model: Model = "bundled",
    dictionaries: DictionariesToUse = "bundled",
    method: Annotated[
        GraphMethod,
        typer.Option(
            help="The kind of graph: effects by gradients, or exact edges of transcoders."
        ),
    ] = GraphMethod.sparse_feature,
    estimator: EstimatorUsed = IG,
    metric: MetricOf = "logit-difference",
    nodes: Annotated[
        str, typer.Option(help="Features and errors to keep; of a replacement graph also 'all'.")
    ] = "100",
    threshold: Annotated[
        float | None, typer.Option(help="Keep only nodes with an effect as large as this.")
    ] = None,
    influence: Annotated[
        float | None,
        typer.Option(help="Keep only the fewest nodes with this share of the influence."),
    ] = None,
    faithfulness: Annotated[
        float | None,
        typer.Option(help="Eliminate nodes as long as the circuit stays as faithful as this."),
    ] = None,
    paths: Annotated[
        int | None,
        typer.Option(help="Keep what lies on so many strongest paths of a replacement graph."),
    ] = None,
    positions: Annotated[
        Positions | None,
        typer.Option(
            help="Token positions: kept apart (keep, for prompts of one length), with last tokens "
            "lined up (end, for several), or summed (sum); by default what the lengths ask for."
        ),
    ] = None,
    skip_unfit: SkipUnfit = False,
    bos: BosUsed = Bos.auto,
    reference: ReferenceUsed = None,
    mlp: MlpUsed = Mlp.sae,
    targets: MostTargets = 7500,
    edge_steps: EdgeSteps = 0,
    edge_threshold: Annotated[
        float, typer.Option(help="Leave out edges under this share of the strongest node.")
    ] = 0.01,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Text for features' examples, besides the prompts, as for train."),
    ] = None,
    dry_run: DryRun = False,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with this run where it was cut off.")
    ] = False,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Find the circuit of a prompt set: its sparse features, or the graph of transcoders.

    Example: `circuits discover prompts.jsonl --model bundled --dictionaries bundled --out run`

    Example: `circuits discover --clean "The keys" --patch "The key" --answer " are"
    --wrong " is" --out run`

    Example: `circuits discover --clean "The keys" --method replacement --out run`

    Example: `circuits discover prompts.jsonl --out run --dry-run`
    """
    from circuits.discovery.config import DiscoverConfig
    from circuits.metrics.readout import read_metric
    from circuits.prompts import WhenUnfit, read_prompts
    from circuits.runs.discover_run import discover_run
    from circuits.runs.inputs import Inputs
    from circuits.runs.prompt_sets import positions_for, reference_for

    placement = placed(device, dtype, memory)
    if method is GraphMethod.replacement:
        mlp = Mlp.transcoder
    path, given = _prompts_asked(prompts, out, clean, patch, answer, wrong)
    listed = given or read_prompts(path)
    unfit: WhenUnfit = "skip" if skip_unfit else "refuse"
    fitting = (listed, model, bos.value, unfit)
    config = DiscoverConfig(
        method=method.value,
        metric=read_metric(metric),
        estimator=estimator.value,
        nodes=_number_of(nodes),
        targets=targets,
        threshold=threshold,
        influence=influence,
        faithfulness=faithfulness,
        paths=paths,
        positions=positions.value if positions else positions_for(*fitting),
        bos=bos.value,
        reference=reference.value if reference else reference_for(listed),
        edge_steps=edge_steps,
        edge_threshold=edge_threshold,
    )
    if dry_run:
        print_estimate(
            estimated(
                listed, model, dictionaries, config, mlp, has_text=bool(text), placement=placement
            )
        )
        return
    inputs = Inputs.resolved(model, dictionaries, path, mlp.value, unfit)
    say_found(dictionaries, mlp)
    with bars() as report:
        found = discover_run(
            inputs,
            out,
            config=config,
            given=given,
            text=text or (),
            seed=seed,
            force=force,
            resume=resume,
            placement=placement,
            command=command_line(),
            report=report,
        )
    discovery_summary(found.graph)
    console.print(
        f"graph {out / 'graph.json'}\npage  {out / 'graph.html'}\nnext  circuits verify {out}",
        highlight=False,
    )


def _number_of(nodes: str) -> int | None:
    """`--nodes`, None for all."""
    if nodes == "all":
        return None
    if not nodes.isdecimal():
        raise ValueError(f"--nodes is {nodes!r}: expected a number, or 'all'")
    return int(nodes)


def _prompts_asked(
    prompts: Path | None,
    out: Path,
    clean: str | None,
    patch: str | None,
    answer: list[str] | None,
    wrong: list[str] | None,
) -> tuple[Path, "list[Prompt] | None"]:
    """The prompt file, and the one prompt to write there where it is given in its place."""
    from circuits.runs.prompt_sets import one_prompt

    if prompts is not None and clean is None:
        if patch or answer or wrong:
            raise ValueError("--patch, --answer and --wrong go with --clean; a file has its own")
        return prompts, None
    if prompts is not None or clean is None:
        raise ValueError("say which prompts: a file, or one with --clean (not both)")
    return out / "prompts.jsonl", [one_prompt(clean, patch, answer or [], wrong or [])]

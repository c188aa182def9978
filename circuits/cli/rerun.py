"""The verb that runs prompts, a text or a generation again under an edit."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.edits import EditFile
from circuits.cli.options import (
    Device,
    DictionariesToUse,
    Force,
    Memory,
    Mlp,
    MlpUsed,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    Threads,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.rerun_tables import rerun_tables
from circuits.cli.tables import say


class Attention(StrEnum):
    free = "free"
    patterns = "patterns"
    frozen = "frozen"


class Mlps(StrEnum):
    model = "model"
    transcoders = "transcoders"
    linear = "linear"
    frozen = "frozen"


def apply_edit(
    edit: EditFile,
    run: Annotated[
        Path | None,
        typer.Option(help="A run to rerun: its model, prompts and settings; its graph is found."),
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help="Prompts to run again: a prompt file; with --run, not the run's."),
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Text to predict again: a file, a folder, 'bundled'; repeat it."),
    ] = None,
    generate: Annotated[
        list[str] | None, typer.Option(help="A prompt to write on from; repeat it for several.")
    ] = None,
    side_effects: Annotated[
        bool,
        typer.Option(
            "--side-effects",
            help="Other tasks and a text (--text, else our English), beside controls.",
        ),
    ] = False,
    model: Model = "bundled",
    dictionaries: DictionariesToUse = "bundled",
    mlp: MlpUsed = Mlp.sae,
    metric: Annotated[
        str, typer.Option(help="Metric of the prompts, as for `circuits discover`.")
    ] = "logit-difference",
    tokens: Annotated[int, typer.Option(help="Tokens of the text, at most.")] = 8192,
    new_tokens: Annotated[int, typer.Option(help="Tokens to write after a prompt.")] = 40,
    temperature: Annotated[
        float, typer.Option(help="Temperature of the writing; 0: the likeliest token each time.")
    ] = 0.0,
    mark: Annotated[
        float, typer.Option(help="Mark tokens whose odds change by this factor or more.")
    ] = 2.0,
    pairs: Annotated[int, typer.Option(help="Pairs of each other task.")] = 24,
    draws: Annotated[int, typer.Option(help="Draws of each kind of control.")] = 3,
    attention: Annotated[
        Attention,
        typer.Option(
            help="While a prompt is read: free, its patterns held, or its norms too (frozen)."
        ),
    ] = Attention.free,
    mlps: Annotated[
        Mlps,
        typer.Option(help="While a prompt is read: the MLPs, or transcoders in their place."),
    ] = Mlps.model,
    out: Annotated[
        Path | None, typer.Option(help="Folder for result.json, result.html and graph.json.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Run prompts, a text or a generation again under an edit; look at what else it does.

    With `--run` the graph under the edit is found too, for `circuits compare RUN OUT`, where it is
    of sparse features. `--attention` and `--mlps` hold parts of each prompt's own run; with
    `--generate` while the prompt is read: generated tokens run in the model itself and attend
    freely to what is in the cache.

    Example: `circuits edit apply cut.json --run run --side-effects --out rerun`

    Example: `circuits edit apply cut.json --prompts prompts.jsonl --text bundled --out rerun`

    Example: `circuits edit apply cut.json --generate "The surgeons near the jackets"`

    Example: `circuits edit apply cut.json --run run --attention frozen --mlps transcoders`
    """
    from circuits.edits.continuations import GenerateConfig
    from circuits.edits.side_effects import SideEffectsConfig
    from circuits.runs.rerun import Rerun, rerun_edit
    from circuits.runs.rerun_folder import GRAPH, PAGE, RESULT
    from transcoders.interventions import Mode

    placement = placed(device, dtype, memory)
    rerun = Rerun(
        run=run,
        prompts=prompts,
        metric=metric,
        text=tuple(text or ()),
        tokens=tokens,
        generate=tuple(generate or ()),
        writing=GenerateConfig(tokens=new_tokens, temperature=temperature, mark=mark, seed=seed),
        side_effects=(
            SideEffectsConfig(prompts=pairs, draws=draws, seed=seed) if side_effects else None
        ),
        seed=seed,
        mode=Mode.of(attention.value, mlps.value),
    )
    with bars() as report:
        record = rerun_edit(
            edit,
            rerun,
            out,
            model=model,
            dictionaries=dictionaries,
            mlp=mlp.value,
            force=force,
            placement=placement,
            report=report,
        )
    rerun_tables(record)
    if out is not None:
        say(f"result {out / RESULT}\npage   {out / PAGE}")
        if "graph" in record:
            say(f"graph  {out / GRAPH}, for `circuits compare {run} {out}`")

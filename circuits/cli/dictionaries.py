"""The verbs for trained dictionaries: evaluate, convert."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.conversion_tables import conversion_tables
from circuits.cli.options import (
    Device,
    Dictionaries,
    Force,
    Memory,
    Mlp,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    Text,
    Threads,
    at_least,
    placed,
    say_found,
)
from circuits.cli.progress_bars import bars
from circuits.cli.quality_tables import mlp_table, probe_table, quality_table
from circuits.cli.tables import console, say
from circuits.render.words import counted


class WrittenLayout(StrEnum):
    saelens = "saelens"
    sparsify = "sparsify"
    circuit_tracer = "circuit-tracer"


def evaluate(
    dictionaries: Dictionaries,
    text: Text,
    model: Model = "bundled",
    tokens: Annotated[int, typer.Option(help="Tokens of text to judge on.")] = 4096,
    mlp: Annotated[
        Mlp, typer.Option(help="Which to splice with all the others, where an MLP has both.")
    ] = Mlp.sae,
    labelled: Annotated[
        Path | None, typer.Option(help="JSONL with text and label: probe single features for it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the figures here as JSON, and beside it an SVG.")
    ] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """How good dictionaries are, beside untrained ones and the best linear map of the same rank.

    Example: `circuits evaluate bundled --model bundled --text bundled`
    """
    from circuits import suites
    from circuits.graph import write_json
    from circuits.opening import sources
    from circuits.render.charts.quality import quality_figure
    from circuits.runs.overwrite import MADE_FROM, check_record
    from hooked_qwen.texts import texts_of

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    options = {"tokens": tokens, "mlp": mlp.value, "labelled": labelled and str(labelled)}
    options |= {"seed": seed}
    source = {} if out is None else sources(dictionaries, model, text, placement, **options)
    if out is not None:
        check_record(out, source, beside=(".svg",), force=force)
    say_found(dictionaries, mlp)
    with bars() as report:
        record = suites.evaluate_suite(
            dictionaries,
            model,
            texts_of(text, seed=seed),
            tokens,
            mlp=mlp.value,
            labelled=labelled,
            seed=seed,
            placement=placement,
            report=report,
        )
    found = record["dictionaries"]
    quality_table(list(found), list(found.values()), record["joint"])
    if "mlps" in record:
        mlp_table(record["mlps"]["names"], record)
    if "probes" in record:
        probe_table(record["probes"])
    if out is not None:
        write_json(record | {MADE_FROM: source}, out)
        quality_figure(found, out.with_suffix(".svg"))
        console.print(f"figures in {out} and {out.with_suffix('.svg')}", highlight=False)


def convert(
    dictionaries: Annotated[
        str, typer.Argument(help="Dictionaries: a folder, a hub name, with --map also a file.")
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    to: Annotated[WrittenLayout | None, typer.Option(help="The layout to write.")] = None,
    map: Annotated[
        Path | None,
        typer.Option(help="A YAML file that says what is what in files of any layout: made ours."),
    ] = None,
    try_all: Annotated[
        bool,
        typer.Option("--try", help="Try the usual conventions on --text, and use what fits."),
    ] = False,
    text: Annotated[
        list[str] | None, typer.Option(help="Text to judge on, as for the other commands.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="The model to judge with, as for the other commands.")
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of text to judge on.")] = 4096,
    only: Annotated[
        Mlp | None, typer.Option(help="Leave out the others: some layouts cannot hold both.")
    ] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Write dictionaries in the layout of another library, or make those of any layout ours.

    Example: `circuits convert bundled for-saelens --to saelens --only sae`
    """
    by_map = map is not None or try_all
    if (to is None) != by_map:
        raise ValueError(
            "convert takes either --to LAYOUT, for another library, or --map FILE or --try, to "
            f"make dictionaries of any layout ours: got {'neither' if to is None else 'both'}"
        )
    if to is None:
        from circuits import scope

        at_least(128, tokens=tokens)
        if only is not None:
            raise ValueError("--only goes with --to: a map names the files that are read")
        with bars() as report:
            record = scope.convert(
                dictionaries,
                out,
                map=map,
                try_all=try_all,
                text=text or (),
                model=model,
                tokens=tokens,
                seed=seed,
                placement=placed(device, dtype),
                report=report,
            )
        conversion_tables(record)
        written = counted(len(record["dictionaries"]), "dictionary", "dictionaries")
        say(f"{written} in {out}, and map.yaml, by which --map reads the same again")
        return
    if text or model:
        raise ValueError("--text and --model go with --map or --try: --to changes no number")
    from saes.formats.convert import convert as convert_dictionaries

    _need_free(out)
    written = convert_dictionaries(dictionaries, out, to.value, only=only.value if only else None)
    console.print(
        f"{counted(len(written), 'dictionary', 'dictionaries')} in {out}", highlight=False
    )


def _need_free(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"{out} is not empty: choose another --out, or remove it first")

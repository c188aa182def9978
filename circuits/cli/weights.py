"""The verb that shows what features are connected to by weights alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from circuits.cli.options import (
    Device,
    Dictionaries,
    FeatureAsked,
    Force,
    Memory,
    Mlp,
    MlpUsed,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, say

Entries = Sequence[Mapping[str, Any]]


def weights(
    dictionaries: Dictionaries,
    which: FeatureAsked,
    model: Model = "bundled",
    top: Annotated[int, typer.Option(help="Connections of each kind, the largest by size.")] = 10,
    mlp: MlpUsed = Mlp.transcoder,
    text: Annotated[
        list[str] | None,
        typer.Option(
            help="Rank what it reads by what it adds on average where the feature is on, in this "
            "text (as for train): what is never on together is left out."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of --text.")] = 16_384,
    out: Annotated[Path | None, typer.Option(help="A JSON file for what is shown.")] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """What a feature reads and what reads it, by weights alone: no prompt, no forward pass.

    Example: `circuits weights bundled mlp_out.4/17`

    Example: `circuits weights bundled mlp_out.4/17 --text bundled`
    """
    from circuits import suites
    from circuits.opening import sources
    from hooked_qwen.texts import texts_of

    at_least(1, top=top, tokens=tokens)
    place = placed(device, dtype, memory)
    options = {"feature": which, "top": top, "mlp": mlp.value, "tokens": tokens, "seed": seed}
    source = {} if out is None else sources(dictionaries, model, text or [], place, **options)
    with bars() as report:
        record = suites.connections(
            dictionaries,
            which,
            model,
            top=top,
            mlp=mlp.value,
            texts=texts_of(text, seed=seed) if text else None,
            tokens=tokens,
            out=out,
            made_from=source,
            force=force,
            placement=place,
            report=report,
        )
    show_connections(record)
    if out is not None:
        say(f"written to {out}")


def show_connections(record: Mapping[str, Any]) -> None:
    """Print what a feature is connected to."""
    console.print(Text.assemble((record["feature"], "bold"), f"  {record['label']}"))
    reads, writes = record.get("reads"), record["writes"]
    if "text" in record:
        on, seen = record["text"]["on"], record["text"]["tokens"]
        say(
            f"on at {on:,} of {seen:,} tokens: first what is added there on average, then the "
            "weight, and how often the two are on together"
        )
    if reads is not None:
        at = reads["site"]
        _table(f"reads tokens at {at}", reads["tokens"])
        _table(f"reads features at {at}", reads["features"])
        _table("reads features through one head", reads["heads"])
    for word in ("promoted", "suppressed"):
        pairs = [{"token": token, "weight": score} for token, score in writes[word]]
        _table(f"{word} tokens", pairs)
    _table(f"is read, at {writes['site']}, by", writes["features"])


def _table(title: str, entries: Entries) -> None:
    """Weights with their signs, and what they are of."""
    from circuits.render.words import readable
    from hooked_qwen.percents import percent

    if not entries:
        return
    console.print(Text(f"\n{title}", style="bold"))
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    for entry in entries:
        numbers = [f"  {entry.get('mean', entry['weight']):+#.3g}"]
        if "mean" in entry:
            numbers.append(f"{entry['weight']:+#.3g}")
            numbers.append(percent(entry["together"]) if "together" in entry else "")
        if "token" in entry:
            table.add_row(*numbers, Text(readable(entry["token"])))
            continue
        through = f"head {entry['head']}" if "head" in entry else ""
        label = Text(readable(entry["label"]), overflow="ellipsis", no_wrap=True)
        table.add_row(*numbers, entry["feature"], through, label)
    console.print(table)

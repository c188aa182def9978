"""`circuits features search`."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from circuits.cli.feature_tables import feature_cells, feature_table
from circuits.cli.options import (
    Device,
    Dictionaries,
    Memory,
    Mlp,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, say
from circuits.render.words import readable


class Ranked(StrEnum):
    share = "share"
    mean = "mean"


Texts = Annotated[
    list[str] | None,
    typer.Option(help="Texts, as --text of other verbs takes them; a set needs the other one."),
]


def search(
    dictionaries: Dictionaries,
    model: Model = "bundled",
    positive: Texts = None,
    negative: Texts = None,
    text: Annotated[str | None, typer.Option(help="A text: what is on at each token.")] = None,
    token: Annotated[
        str | None, typer.Option(help="A token, its space before it: what promotes it.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Words that a feature's label holds.")] = None,
    by: Annotated[
        Ranked,
        typer.Option(help="Rank by the share of texts a feature is on in, or by its mean."),
    ] = Ranked.share,
    top: Annotated[int, typer.Option(help="Features to show.")] = 20,
    texts: Annotated[int, typer.Option(help="Texts of each set that are read at most.")] = 200,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to use where an MLP has both.")
    ] = Mlp.sae,
    out: Annotated[Path | None, typer.Option(help="A JSON file for what is shown.")] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Find features by two sets of texts, in a text, by a token they promote, by their labels.

    Beside each feature of a contrast stands how many differ as much under shuffled labels.

    Example: `circuits features search bundled --token " sit"`

    Example: `circuits features search bundled --positive plural.jsonl --negative singular.jsonl`
    """
    from circuits import scope

    at_least(1, top=top, texts=texts)
    with bars() as report:
        record = scope.search(
            dictionaries,
            model,
            positive=positive or (),
            negative=negative or (),
            text=text,
            token=token,
            label=label,
            by=by.value,
            top=top,
            texts=texts,
            mlp=mlp.value,
            seed=seed,
            out=out,
            placement=placed(device, dtype, memory),
            report=report,
        )
    SHOWN[record["how"]](record)
    if out is not None:
        say(f"written to {out}")


def _contrast(record: Mapping[str, Any]) -> None:
    table = feature_table("positive", "negative", "difference", "95 %", "effect", "by chance")
    for one in record["found"]:
        low, high = one["interval"]
        table.add_row(
            f"{one['on_positive']:.2f}",
            f"{one['on_negative']:.2f}",
            f"{one['difference']:+.2f}",
            f"{low:+.2f} to {high:+.2f}",
            f"{one['effect']:+.2f}",
            f"{one['by_chance']:.3g}",
            *feature_cells(one),
        )
    console.print(table)
    n, unit = record["texts"], "" if record["by"] == "share" else " standard deviations"
    say(
        f"{n['positive']} positive and {n['negative']} negative texts, {record['features_on']:,} "
        f"features on in some; shuffled labels reach {record['chance']:.2f}{unit} somewhere once "
        "in twenty times"
    )
    if record["texts_cut"]:
        say(f"note: of {record['texts_cut']} texts the first {record['longest']} tokens were read")


def _in_text(record: Mapping[str, Any]) -> None:
    table = feature_table("token", "activation")
    for one in record["tokens"]:
        word = readable(one["token"])
        for found in one["features"]:
            table.add_row(Text(word), f"{found['activation']:.3g}", *feature_cells(found))
            word = ""
    console.print(table)


def _by_token(record: Mapping[str, Any]) -> None:
    table = feature_table("logits")
    for one in record["found"]:
        table.add_row(f"{one['logits']:+.3g}", *feature_cells(one))
    console.print(table)


def _by_label(record: Mapping[str, Any]) -> None:
    table = feature_table()
    for one in record["found"]:
        table.add_row(*feature_cells(one))
    console.print(table)
    say(f"{record['holding_all']} of {record['labels']} labels hold the words")


SHOWN = {"contrast": _contrast, "text": _in_text, "token": _by_token, "label": _by_label}

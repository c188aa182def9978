"""The verbs that put features to use."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

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
    at_least,
    placed,
)
from circuits.cli.options import Text as TextOption
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


def classify(
    dictionaries: Dictionaries,
    labelled: Annotated[Path, typer.Option(help="JSON Lines with text and label.")],
    positive: Annotated[str, typer.Option(help="The label to detect; all others are negative.")],
    model: Model = "bundled",
    test: Annotated[
        Path | None, typer.Option(help="Other labelled texts to judge on, else a part of these.")
    ] = None,
    texts: Annotated[
        int | None, typer.Option(help="Learn from so many texts of each kind; by default all.")
    ] = None,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to use where an MLP has both.")
    ] = Mlp.sae,
    out: Annotated[Path | None, typer.Option(help="A JSON file for the detector.")] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make a detector of a few features from labelled texts, and judge it beside simple methods.

    Example: `circuits classify bundled --labelled texts.jsonl --positive plural --out plural.json`
    """
    from circuits import scope

    if texts is not None:
        at_least(1, texts=texts)
    with bars() as report:
        record = scope.classify(
            dictionaries,
            model,
            labelled=labelled,
            positive=positive,
            test=test,
            texts=texts,
            mlp=mlp.value,
            seed=seed,
            out=out,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    _classified(record)
    if out is not None:
        say(f"written to {out}")


def detect(
    detector: Annotated[Path, typer.Argument(help="What `circuits classify` wrote.")],
    dictionaries: Dictionaries,
    text: TextOption,
    model: Model = "bundled",
    out: Annotated[Path | None, typer.Option(help="A file for a line of JSON a text.")] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    """Run a detector over texts, as many as there are.

    Example: `circuits detect plural.json bundled --text texts.jsonl --out found.jsonl`
    """
    from circuits import scope

    counts = [0, 0]
    for found in scope.detect(
        detector, dictionaries, model, text=text, out=out, placement=placed(device, dtype, memory)
    ):
        counts[found["positive"]] += 1
        if out is None:
            sign = "+" if found["positive"] else " "
            console.print(Text(f"{sign} {found['score']:8.3f}  {readable(found['text'])}"))
    say(f"{counts[1]:,} of {sum(counts):,} texts are positive")
    if out is not None:
        say(f"written to {out}")


def _classified(record: Mapping[str, Any]) -> None:
    table = _methods("F1", "AUROC", "TPR at 1% FPR", "chosen")
    for one in record["methods"]:
        table.add_row(
            one["name"],
            f"{one['f1']:.2f} {_ends(one['f1_interval'])}",
            f"{one['auroc']:.2f} {_ends(one['auroc_interval'])}",
            f"{one['tpr']:.2f}",
            one["choice"],
        )
    console.print(table)
    if few := record["by_texts"]:
        table = _methods(*(f"from {n}" for n in few))
        for number, one in enumerate(record["methods"]):
            values = (methods[number]["auroc"] for methods in few.values())
            table.add_row(one["name"], *(f"{value:.2f}" for value in values))
        console.print(table)
        say("AUROC where so many texts of each kind are learned from\n")
    of_each = _table("usual activation")
    for one in record["features"]:
        of_each.add_row(f"{one['usual']:.3g}", *_named(one))
    console.print(of_each)
    n, positives = record["texts"], record["positives"]
    say(
        f"{n['train']} texts to learn from, {n['held_out']} held out, {n['test']} to judge on, of "
        f"which {positives['test']} are positive; a text counts above {record['threshold']:.3g}"
    )


def _methods(*columns: str) -> Table:
    return Table(
        Column("method", no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in columns),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"({interval[0]:.2f}..{interval[1]:.2f})"


def _table(*columns: str) -> Table:
    """Numbers to the right, then the feature and its label."""
    return Table(
        *(Column(name, justify="right", no_wrap=True) for name in columns),
        Column("feature", no_wrap=True),
        Column("label", overflow="ellipsis", no_wrap=True),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _named(found: Mapping[str, Any]) -> tuple[str, Text]:
    return found["feature"], Text(readable(found["label"]))


def _contrast(record: Mapping[str, Any]) -> None:
    table = _table("positive", "negative", "difference", "95 %", "effect", "by chance")
    for one in record["found"]:
        low, high = one["interval"]
        table.add_row(
            f"{one['on_positive']:.2f}",
            f"{one['on_negative']:.2f}",
            f"{one['difference']:+.2f}",
            f"{low:+.2f} to {high:+.2f}",
            f"{one['effect']:+.2f}",
            f"{one['by_chance']:.3g}",
            *_named(one),
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
    table = _table("token", "activation")
    for one in record["tokens"]:
        word = readable(one["token"])
        for found in one["features"]:
            table.add_row(Text(word), f"{found['activation']:.3g}", *_named(found))
            word = ""
    console.print(table)


def _by_token(record: Mapping[str, Any]) -> None:
    table = _table("logits")
    for one in record["found"]:
        table.add_row(f"{one['logits']:+.3g}", *_named(one))
    console.print(table)


def _by_label(record: Mapping[str, Any]) -> None:
    table = _table()
    for one in record["found"]:
        table.add_row(*_named(one))
    console.print(table)
    say(f"{record['holding_all']} of {record['labels']} labels hold the words")


SHOWN = {"contrast": _contrast, "text": _in_text, "token": _by_token, "label": _by_label}

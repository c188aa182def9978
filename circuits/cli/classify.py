"""`circuits classify` and `circuits detect`."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from circuits.cli.feature_tables import feature_cells, feature_table
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
from circuits.render.words import counted, readable


class Across(StrEnum):
    one = "one"
    several = "several"
    chosen = "chosen"


def classify(
    dictionaries: Dictionaries,
    labelled: Annotated[Path, typer.Option(help="JSON Lines with text and label.")],
    positive: Annotated[str, typer.Option(help="The label to detect; all others are negative.")],
    model: Model = "bundled",
    test: Annotated[
        list[str] | None,
        typer.Option(
            help="Other labelled texts to judge on instead of a part of these; NAME=FILE, or "
            "several: beside it."
        ),
    ] = None,
    texts: Annotated[
        int | None, typer.Option(help="Learn from so many texts of each kind; by default all.")
    ] = None,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to use where an MLP has both.")
    ] = Mlp.sae,
    across: Annotated[
        Across, typer.Option(help="Features of one dictionary, of several, or what ranks best.")
    ] = Across.one,
    out: Annotated[
        Path | None, typer.Option(help="A JSON file for the detector; figures go beside it.")
    ] = None,
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
            test=_tests(test or []),
            texts=texts,
            mlp=mlp.value,
            across=across.value,
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


def _tests(given: Sequence[str]) -> Path | dict[str, Path] | None:
    """A single file without a name stands alone; else files by their names, or by their stems."""
    if len(given) == 1 and (Path(given[0]).exists() or "=" not in given[0]):
        return Path(given[0])
    found: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        named = equals and not Path(text).exists()
        name, path = (name, Path(file)) if named else (Path(text).stem, Path(text))
        if name in found:
            raise ValueError(
                f"two tests are called {name!r}, {found[name]} and {path}: say --test NAME=FILE"
            )
        found[name] = path
    return found or None


def _classified(record: Mapping[str, Any]) -> None:
    tests = {"own": record, **record["tests"]}
    table = _methods(
        *(["judged on"] if record["tests"] else []), "F1", "AUROC", "TPR at 1% FPR", "chosen"
    )
    for number, method in enumerate(record["methods"]):
        for name, judged in tests.items():
            one = judged["methods"][number]
            table.add_row(
                method["name"] if name == "own" else "",
                *([name] if record["tests"] else []),
                f"{one['f1']:.2f} {_ends(one['f1_interval'])}",
                f"{one['auroc']:.2f} {_ends(one['auroc_interval'])}",
                f"{one['tpr']:.2f}",
                one["choice"] if name == "own" else "",
            )
    console.print(table)
    if few := record["by_texts"]:
        table = _methods(*(f"from {n}" for n in few))
        for number, one in enumerate(record["methods"]):
            values = (methods[number]["auroc"] for methods in few.values())
            table.add_row(one["name"], *(f"{value:.2f}" for value in values))
        console.print(table)
        say("AUROC where so many texts of each kind are learned from\n")
    table = _methods(*(counted(int(n), "feature") for n in record["by_features"]))
    for number, one in enumerate(record["methods"][:2]):
        values = (methods[number]["auroc"] for methods in record["by_features"].values())
        table.add_row(one["name"], *(f"{value:.2f}" for value in values))
    console.print(table)
    say("AUROC of so many features at most\n")
    of_each = feature_table("usual activation")
    for one in record["features"]:
        of_each.add_row(f"{one['usual']:.3g}", *feature_cells(one))
    console.print(of_each)
    n, positives = record["texts"], record["positives"]
    say(
        f"{n['train']} texts to learn from, {n['held_out']} held out, {n['test']} to judge on, of "
        f"which {positives['test']} are positive; a text counts above {record['threshold']:.3g}"
    )


def _methods(*columns: str) -> Table:
    return Table(
        Column("method", no_wrap=True),
        # What was chosen may be long: it is folded before numbers are cut.
        *(Column(name, justify="right", no_wrap=name != "chosen") for name in columns),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"({interval[0]:.2f}..{interval[1]:.2f})"

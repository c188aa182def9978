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
    MlpUsed,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    SeedUnused,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, say
from circuits.render.words import readable


class AcrossChoice(StrEnum):
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
    mlp: MlpUsed = Mlp.sae,
    across: Annotated[
        AcrossChoice,
        typer.Option(help="Features of one dictionary, of several, or what ranks best."),
    ] = AcrossChoice.one,
    out: Annotated[
        Path | None, typer.Option(help="A JSON file for the detector; figures go beside it.")
    ] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    threads: Threads = None,
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
    detector: Annotated[Path, typer.Argument(help="The detector that `circuits classify` wrote.")],
    dictionaries: Dictionaries,
    text: Annotated[
        list[str],
        typer.Option(
            help="Texts, as for the other commands, or - for lines of JSON on standard input."
        ),
    ],
    model: Model = "bundled",
    out: Annotated[Path | None, typer.Option(help="A file for a line of JSON a text.")] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: SeedUnused = 0,
    threads: Threads = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Run a detector over texts, as many as there are.

    Example: `circuits detect plural.json bundled --text texts.jsonl --out found.jsonl`, or from a
    stream `cat texts.jsonl | circuits detect plural.json bundled --text -`
    """
    from circuits import scope

    counts = [0, 0]
    for found in scope.detect(
        detector,
        dictionaries,
        model,
        text=text,
        out=out,
        force=force,
        placement=placed(device, dtype, memory),
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
    console.print(judged_table(record))
    counts = [(record["texts"]["test"], record["positives"]["test"])]
    counts += [(test["texts"], test["positives"]) for test in record["tests"].values()]
    if any(texts - positives < 100 for texts, positives in counts):
        say("TPR at 1% FPR: of fewer than a hundred negative texts none passes")
    most = record["by_share"]["100"]
    if few := list(record["by_texts"]):
        console.print(_by_number(record, "by_texts", "AUROC, learned from", [*few, str(most)]))
        counts = ", ".join(f"{n} ({percent} %)" for percent, n in record["by_share"].items())
        draws = len(record["by_texts"][few[0]][0]["draws"])
        say(
            f"so many texts of each kind, means over {draws} draws of fewer than all; "
            f"shares of all are {counts}\n"
        )
    sizes = list(record["by_features"])
    console.print(_by_number(record, "by_features", "AUROC, features at most", sizes))
    say(
        "what reads no features is the same for any number; F1, TPR and intervals are in the "
        "record\n"
    )
    of_each = feature_table("usual activation")
    for one in record["features"]:
        of_each.add_row(f"{one['usual']:.3g}", *feature_cells(one))
    console.print(of_each)
    n, positives = record["texts"], record["positives"]
    say(
        f"{n['train']} texts to learn from, {n['held_out']} held out, {n['test']} to judge on, of "
        f"which {positives['test']} are positive; a text counts above {record['threshold']:.3g}"
    )


def judged_table(record: Mapping[str, Any]) -> Table:
    """Every method on every test."""
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
                *(f"{one[m]:.2f} {_ends(one[f'{m}_interval'])}" for m in ("f1", "auroc", "tpr")),
                one["choice"] if name == "own" else "",
            )
    return table


def _by_number(record: Mapping[str, Any], key: str, first: str, numbers: Sequence[str]) -> Table:
    """AUROC of every method, on every test, by a number on which some methods may not depend."""
    tests = {"own": record, **record["tests"]}
    table = _methods(*(["judged on"] if record["tests"] else []), *numbers, first=first)
    table.collapse_padding = True
    for i, method in enumerate(record["methods"]):
        for name, judged in tests.items():
            held = [dict(enumerate(judged[key].get(n, ()))) for n in numbers]
            values = (of.get(i, judged["methods"][i])["auroc"] for of in held)
            table.add_row(
                method["name"] if name == "own" else "",
                *([name] if record["tests"] else []),
                *(f"{value:.2f}" for value in values),
            )
    return table


def _methods(*columns: str, first: str = "method") -> Table:
    return Table(
        Column(first, no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in columns),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _ends(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f"({interval[0]:.2f}..{interval[1]:.2f})"

"""`circuits features search`."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from circuits.cli.feature_tables import feature_cells, feature_table
from circuits.cli.options import (
    PATCHING,
    Device,
    Dictionaries,
    Estimator,
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
from circuits.features.search_ways import check_ways
from circuits.render.words import readable


class Ranked(StrEnum):
    share = "share"
    mean = "mean"


TextSet = Annotated[
    list[str] | None,
    typer.Option(help="Texts, as --text of other verbs takes them; a set needs the other one."),
]


def search(
    dictionaries: Dictionaries,
    model: Model = "bundled",
    positive: TextSet = None,
    negative: TextSet = None,
    prompts: Annotated[
        Path | None, typer.Option(help="A prompt file: features by their effect on its metric.")
    ] = None,
    metric: Annotated[
        str | None,
        typer.Option(
            help="Rank by the effect on it: of two sets next-token, or 'token: are' for the "
            "log-probability of a token; of prompts a metric as discover takes it.",
        ),
    ] = None,
    text: Annotated[str | None, typer.Option(help="A text: what is on at each token.")] = None,
    token: Annotated[
        str | None, typer.Option(help="A token, its space before it: what promotes it.")
    ] = None,
    label: Annotated[str | None, typer.Option(help="Words that a feature's label holds.")] = None,
    by: Annotated[
        Ranked,
        typer.Option(help="Rank by the share of texts a feature is on in, or by its mean."),
    ] = Ranked.share,
    estimator: Annotated[
        Estimator, typer.Option(help="How effects are estimated; the top are measured.")
    ] = PATCHING,
    top: Annotated[int, typer.Option(help="Features to show.")] = 20,
    texts: Annotated[int, typer.Option(help="Texts of each set that are read at most.")] = 200,
    mlp: MlpUsed = Mlp.sae,
    out: Annotated[Path | None, typer.Option(help="A JSON file for what is shown.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="An HTML file: the list, and texts coloured by a feature.")
    ] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    threads: Threads = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Find features by two sets of texts, by a metric, in a text, by a token, by their labels.

    Beside each feature of a contrast stands how many differ as much under shuffled labels, beside
    those of an effect as many at random.

    Example: `circuits features search bundled --token " sit"`

    Example: `circuits features search bundled --positive plural.jsonl --negative singular.jsonl
    --page found.html`

    Example: `circuits features search bundled --prompts prompts.jsonl --top 10`
    """
    at_least(1, top=top, texts=texts)
    # Before what takes seconds to import.
    check_ways(
        positive=positive or (),
        negative=negative or (),
        prompts=prompts,
        text=text,
        token=token,
        label=label,
        metric=metric,
    )
    from circuits import scope

    with bars() as report:
        record = scope.search(
            dictionaries,
            model,
            positive=positive or (),
            negative=negative or (),
            prompts=prompts,
            metric=metric,
            text=text,
            token=token,
            label=label,
            by=by.value,
            estimator=estimator.value,
            top=top,
            texts=texts,
            mlp=mlp.value,
            seed=seed,
            out=out,
            page=page,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    SHOWN[record["how"]](record)
    for written in (out, page):
        if written is not None:
            say(f"written to {written}")


def _contrast(record: Mapping[str, Any]) -> None:
    # The interval stands behind what features are ranked by.
    by_share = record["by"] == "share"
    place = 3 if by_share else 4
    names = ["positive", "negative", "difference", "difference in s.d.", "by chance"]
    table = feature_table(*names[:place], "95 %", *names[place:])
    for one in record["found"]:
        cells = [
            f"{one['on_positive']:.2f}",
            f"{one['on_negative']:.2f}",
            f"{one['difference']:+.2f}",
            f"{one['effect']:+.2f}",
            _by_chance(record, one),
        ]
        ends = _ends(one["interval" if by_share else "effect_interval"], "+.2f")
        table.add_row(*cells[:place], ends, *cells[place:], *feature_cells(one))
    console.print(table)
    n, unit = record["texts"], "" if by_share else " standard deviations"
    say(
        f"{n['positive']} positive and {n['negative']} negative texts, {record['features_on']:,} "
        f"features on in some; shuffled labels reach {record['chance']:.2f}{unit} somewhere once "
        "in twenty times"
    )
    if record["texts_cut"]:
        say(f"note: of {record['texts_cut']} texts the first {record['longest']} tokens were read")


def _effect(record: Mapping[str, Any]) -> None:
    of_kinds = record["chance"] is not None
    kinds = ["positive", "negative"] if of_kinds else []
    exact = "difference" if of_kinds else "exact"
    table = feature_table(
        "estimate", exact, "95 %", *kinds, *(["by chance"] if of_kinds else []), "texts"
    )
    for one in record["found"]:
        of_each = [f"{one[kind]:+.3g}" for kind in kinds]
        chance = [_by_chance(record, one)] if of_kinds else []
        table.add_row(*_measured(one), *of_each, *chance, str(one["texts_on"]), *feature_cells(one))
    console.print(table)
    random = record["random"]
    agreed = record["agreement"]["pearson"]
    to = "the patch" if record["reference"] == "patch" else "zero"
    told = f"effect on {record['metric']} of moving a feature to {to}"
    if of_kinds:
        told += ", in nats: mean in positive texts less mean in negative ones"
    say(
        f"{told}; mean size, exact: {random['mean_size_of_found']:.3g}, of "
        f"{len(random['features'])} random features on in as many texts "
        f"{random['mean_size'] or 0:.3g}; estimate and exact correlate by "
        f"{'–' if agreed is None else format(agreed, '.2f')}"
    )
    if of_kinds:
        say(f"shuffled labels reach {record['chance']:.3g} somewhere once in twenty times")


def _measured(one: Mapping[str, Any]) -> tuple[str, str, str]:
    return f"{one['estimate']:+.3g}", f"{one['exact']:+.3g}", _ends(one["interval"], "+.3g")


def _by_chance(record: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """How many features differ as much under shuffled labels, as far as the shuffles can tell."""
    return f"{found['by_chance']:.3g}" if found["by_chance"] else f"<{1 / record['shuffles']:.3g}"


def _ends(ends: Sequence[float] | None, written: str) -> str:
    return "–" if ends is None else f"{ends[0]:{written}} to {ends[1]:{written}}"


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


SHOWN = {
    "contrast": _contrast,
    "effect": _effect,
    "text": _in_text,
    "token": _by_token,
    "label": _by_label,
}

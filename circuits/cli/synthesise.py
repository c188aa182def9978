"""`circuits synthesise`."""

from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

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
    OutFolder,
    Quiet,
    Seed,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, say
from hooked_qwen.percents import percent

SHOWN = 10
"Features that were asked for, in the table."


class RequestStyle(StrEnum):
    instruction = "instruction"
    continuation = "continuation"


def synthesise(
    dictionaries: Dictionaries,
    training: Annotated[Path, typer.Option(help="JSON Lines with text and label: what there is.")],
    target: Annotated[
        Path, typer.Option(help="JSON Lines with text and label: what is to be covered.")
    ],
    out: OutFolder,
    model: Model = "bundled",
    test: Annotated[
        Path | None,
        typer.Option(help="JSON Lines with text and label: what classifiers are judged on."),
    ] = None,
    features: Annotated[int, typer.Option(help="Missing features to ask for at most.")] = 20,
    least: Annotated[int, typer.Option(help="Target texts a missing feature is on in.")] = 2,
    tries: Annotated[int, typer.Option(help="Texts asked for of each feature.")] = 4,
    shown: Annotated[int, typer.Option(help="Examples in a prompt.")] = 3,
    seeds: Annotated[int, typer.Option(help="Times that everything is written anew.")] = 3,
    ask: Annotated[
        RequestStyle | None,
        typer.Option(
            help="How texts are asked for: by an instruction, or by examples to be continued; by "
            "default an instruction where the tokenizer has a chat template."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of a text that is written, at most.")] = 80,
    temperature: Annotated[float, typer.Option(help="Temperature of the model that writes.")] = 1.0,
    separator: Annotated[
        str, typer.Option(help="What stands between examples to be continued.", show_default=False)
    ] = "\n\n",
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="Let an OpenAI-compatible server write, such as http://localhost:8000/v1; its "
            "key in the environment variable OPENAI_API_KEY."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name at the endpoint.")] = None,
    mlp: MlpUsed = Mlp.sae,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    threads: Threads = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Have texts written for features that a target set turns on and a training set never does.

    As many texts stand beside them that were written without asking for features, and real ones.

    Example: `circuits synthesise bundled --training some.jsonl --target more.jsonl
    --test other.jsonl --out synthesis`
    """
    from circuits import scope
    from circuits.features.synthesis_record import SynthesisConfig
    from circuits.scope.synthesise import FIGURES, KEPT, RECORD, WRITTEN

    at_least(1, features=features, tries=tries, shown=shown, seeds=seeds)
    at_least(1, tokens=tokens)
    with bars() as report:
        record = scope.synthesise(
            dictionaries,
            model,
            training=training,
            target=target,
            test=test,
            generator=_generator(endpoint, name, tokens, temperature, seed),
            config=SynthesisConfig(
                features=features, least=least, tries=tries, shown=shown, seeds=seeds, seed=seed
            ),
            style=ask.value if ask else None,
            tokens=tokens,
            temperature=temperature,
            separator=separator,
            mlp=mlp.value,
            out=out,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    asked_table(record)
    synthesis_table(record)
    say(
        f"texts {out / KEPT}, all that was written {out / WRITTEN}\nrecord {out / RECORD}\n"
        f"figure {', '.join(str(out / figure) for figure in FIGURES)}"
    )


def _generator(
    endpoint: str | None, name: str | None, tokens: int, temperature: float, seed: int
) -> Callable[[str], str] | None:
    """A server that writes; None for the model itself."""
    from circuits.features.answers import endpoint as served

    if endpoint is None and name is None:
        return None
    if endpoint is None or name is None:
        raise ValueError(
            "a server that writes needs --endpoint, its address, and --name, its model"
        )
    return served(endpoint, name, tokens=tokens, temperature=temperature, seed=seed)


def asked_table(record: Mapping[str, Any]) -> None:
    table = feature_table("target texts", "written", "on", "asked as")
    for one in record["asked"][:SHOWN]:
        table.add_row(
            str(one["target_texts"]),
            str(one["written"]),
            str(one["fired"]),
            one["asked_as"],
            *feature_cells(one),
        )
    console.print(table)
    more = len(record["asked"]) - SHOWN
    say(
        f"{record['missing']:,} of the target's {record['target_features']:,} features are on in "
        f"no training text; {len(record['asked'])} were asked for"
        + (f", the other {more} are in the record" if more > 0 else "")
        + "\n"
    )


def synthesis_table(record: Mapping[str, Any]) -> None:
    rows = record["rows"]
    table = _table("texts", "covered", "asked on", "on", "n-grams", "cosine", "examples")
    for row, one in rows.items():
        table.add_row(
            row,
            f"{one['texts']:.3g}",
            percent(one["covered"]),
            percent(one["asked_covered"]),
            "–" if one["fired"] is None else percent(one["fired"]),
            *("–" if one[n] is None else f"{one[n]:.2f}" for n in ("shared", "cosine", "shown")),
        )
    console.print(table)
    say(
        "covered: of the target's features; asked on: of those asked for; on: texts with the one "
        "asked for; n-grams, cosine: of the nearest training text; examples: n-grams of those "
        "shown\n"
    )
    if not all(one["scores"] for one in rows.values()):
        return
    table = _table("mean residual", "ahead", "words", "ahead")
    for row, one in rows.items():
        cells = (_score(one["scores"][way], row) for way in ("stream", "words"))
        table.add_row(row, *(cell for pair in cells for cell in pair))
    console.print(table)
    say("accuracy in %, and what it is ahead of training alone (95 % over test texts)\n")


def _table(*heads: str) -> Table:
    return Table(
        Column("added to training", no_wrap=True),
        *(Column(head, justify="right", no_wrap=True) for head in heads),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )


def _score(score: Mapping[str, Any], row: str) -> tuple[str, str]:
    """Accuracy, and how far it is ahead of training alone, which is not ahead of itself."""
    from circuits.features.synthesis_record import ALONE

    ends = None if row == ALONE else score["ahead_interval"]
    ahead = "–" if ends is None else f"{100 * ends[0]:+z.1f} to {100 * ends[1]:+z.1f}"
    return f"{100 * score['accuracy']:.1f}", ahead

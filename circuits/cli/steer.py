"""`circuits steer`."""

from collections.abc import Mapping
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
    MostTexts,
    Quiet,
    Seed,
    Threads,
    at_least,
    placed,
)
from circuits.cli.progress_bars import bars
from circuits.cli.rerun_tables import with_interval
from circuits.cli.tables import console, say
from circuits.render.pages.steer.steer_page import verdict
from saes.operations import VALUED


class Does(StrEnum):
    # A member for each row of the table; typer offers the members of an enumeration only.
    locals().update({name: name for name in VALUED})


ADD = Does("add")


class During(StrEnum):
    all = "all"
    prompt = "prompt"
    generated = "generated"
    last = "last"


class UnitOf(StrEnum):
    max = "max"
    token = "token"
    activation = "activation"


class Forms(StrEnum):
    text = "text"
    chat = "chat"


class Goals(StrEnum):
    more = "more"
    less = "less"


class Selected(StrEnum):
    output = "output"
    activation = "activation"
    both = "both"


TextSources = Annotated[
    list[str] | None, typer.Option(help="Texts, as --text of other verbs takes them.")
]


def steer(
    dictionaries: Dictionaries,
    score: Annotated[
        str,
        typer.Option(
            help="How much of the concept a text has: regex:PATTERN, script:NAME (cjk, latin, ..), "
            "language:CODE (de, zh, ..), behaviour:cjk or repetition, or probe or means, fitted on "
            "--positive and --negative."
        ),
    ],
    model: Model = "bundled",
    prompt: Annotated[
        list[str] | None, typer.Option(help="A text to go on from; repeat it for several.")
    ] = None,
    prompts: TextSources = None,
    feature: Annotated[
        list[str] | None,
        typer.Option(help="A feature, SITE/INDEX, repeatable; without any, features are chosen."),
    ] = None,
    strength: Annotated[
        list[float] | None,
        typer.Option(help="A strength in --unit, repeatable; by default 0.5, 1, 2 and 4."),
    ] = None,
    do: Annotated[
        Does, typer.Option(help="What a strength does to the feature's activation.")
    ] = ADD,
    during: Annotated[
        During,
        typer.Option(help="The tokens to steer at; last: the prompt's last one and all written."),
    ] = During.all,
    unit: Annotated[
        UnitOf,
        typer.Option(
            help="Unit of strengths: a feature's own largest activation, the largest of any "
            "feature at the last token of a neutral prompt, or activations."
        ),
    ] = UnitOf.max,
    goal: Annotated[
        Goals, typer.Option(help="The aim: more of the concept, or less.")
    ] = Goals.more,
    positive: TextSources = None,
    negative: TextSources = None,
    text: Annotated[
        list[str] | None,
        typer.Option(help="Texts to measure activations on; by default the positive and negative."),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Examples that `circuits suite` collected, to take activations from."),
    ] = None,
    form: Annotated[
        Forms,
        typer.Option(
            help="Prompts, also those with the instruction, are text to go on from, or what a user "
            "says, put through the model's chat template."
        ),
    ] = Forms.text,
    instruction: Annotated[
        str | None,
        typer.Option(
            help="An instruction told to the model instead, before the prompt or around {prompt}."
        ),
    ] = None,
    select: Annotated[
        Selected, typer.Option(help="Choose features by output score, by activation, by both.")
    ] = Selected.both,
    top: Annotated[int, typer.Option(help="Features chosen each way.")] = 3,
    candidates: Annotated[
        int, typer.Option(help="Features with the largest difference to choose from.")
    ] = 30,
    at: Annotated[
        list[str] | None, typer.Option(help="Choose from this dictionary only; repeatable.")
    ] = None,
    texts: MostTexts = 100,
    new_tokens: Annotated[int, typer.Option(help="Tokens written after each prompt.")] = 40,
    temperature: Annotated[
        float, typer.Option(help="Temperature of sampling; 0: the likeliest token each time.")
    ] = 0.0,
    mlp: MlpUsed = Mlp.sae,
    out: Annotated[
        Path | None,
        typer.Option(help="A JSON file for all of it; a page and a figure go beside it."),
    ] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    threads: Threads = None,
    seed: Seed = 0,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Steer a model along features, at several strengths, beside what usually does as well.

    Beside them: a random feature, the sign turned, the encoder's direction, a difference of means,
    an instruction.

    Example: `circuits steer bundled --feature resid_post.3/86 --score regex:s --text bundled
    --prompt "The boy"`
    """
    from circuits import scope
    from circuits.edits.continuations import GenerateConfig
    from circuits.features.steering_arms import SteerConfig

    at_least(1, top=top, candidates=candidates, texts=texts, new_tokens=new_tokens)
    default = SteerConfig()
    config = SteerConfig(
        strengths=tuple(strength) if strength else default.strengths,
        do=do.value,
        during=during.value,
        unit=unit.value,
        goal=goal.value,
        form=form.value,
        instruction=instruction,
        generation=GenerateConfig(tokens=new_tokens, temperature=temperature, seed=seed),
        seed=seed,
    )
    with bars() as report:
        record = scope.steer(
            dictionaries,
            model,
            score=score,
            prompt=prompt or (),
            prompts=prompts or (),
            feature=feature or (),
            positive=positive or (),
            negative=negative or (),
            text=text or (),
            examples=examples,
            select=select.value,
            top=top,
            candidates=candidates,
            at=at or (),
            texts=texts,
            config=config,
            mlp=mlp.value,
            out=out,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    _shown(record)
    if out is not None:
        say(f"written to {out}, {out.with_suffix('.html')} and {out.with_suffix('.svg')}")


def _shown(record: Mapping[str, Any]) -> None:
    say(verdict(record))
    console.print(methods_table(record))
    console.print(_differences(record))
    console.print(_features(record))
    for note in record["notes"]:
        say(f"note: {note}")


def methods_table(record: Mapping[str, Any]) -> Table:
    table = Table(
        Column("method", no_wrap=True),
        *(Column(name, justify="right", no_wrap=True) for name in ("both", "concept", "fluency")),
        Column("at", no_wrap=True),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for one in record["methods"]:
        table.add_row(
            one["name"],
            *(with_interval(one[key], "{:.2f}".format) for key in ("score", "concept", "fluency")),
            "; ".join(f"{c['direction']} {c['strength']:g}" for c in one["chosen"]),
        )
    return table


def _differences(record: Mapping[str, Any]) -> Table:
    """Prompt by prompt against the best simple method, and of both ways to choose features."""
    simple = next(o["name"] for o in record["methods"] if o["group"] == record["baseline"])
    pairs = {o["name"]: (o["difference"], simple) for o in record["methods"] if o["difference"]}
    if record["selection"]:
        pairs["a feature by output score"] = record["selection"]["difference"], "one by activation"
    table = Table(
        Column("both, prompt by prompt", no_wrap=True),
        Column("difference", justify="right", no_wrap=True),
        Column("from", no_wrap=True),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for name, (difference, other) in pairs.items():
        table.add_row(name, with_interval(difference, "{:+z.2f}".format), other)
    return table


def _features(record: Mapping[str, Any]) -> Table:
    table = feature_table("chosen by", "output score", "input score", "effect", "largest")
    for one in record["features"]:
        table.add_row(
            ", ".join(one["by"]) or "named",
            f"{one['output_score']:.3g}",
            _or_dash(one["input_score"], "{:.2f}"),
            _or_dash(one["effect"], "{:+.2f}"),
            f"{one['largest']:.3g}",
            *feature_cells(one),
        )
    return table


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)

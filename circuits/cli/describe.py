"""`circuits describe`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Column, Table
from rich.text import Text

from circuits.cli.fitting import LEAST
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
    Threads,
    at_least,
    placed,
)
from circuits.cli.options import Text as TextOption
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console, say
from circuits.render.words import readable
from hooked_qwen.notices import counted


def describe(
    dictionaries: Dictionaries,
    text: TextOption,
    features: Annotated[
        str | None, typer.Option(help="Features, such as 'resid_post.3/86,resid_post.3/5'.")
    ] = None,
    site: Annotated[
        str | None, typer.Option(help="A dictionary, of which features are drawn by the seed.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many features are drawn.")] = 20,
    model: Model = "bundled",
    answers: Annotated[
        str | None,
        typer.Option(
            help="Who explains and judges: 'model' for the model itself, or another one as "
            "--model takes it; by default a written rule, judged by words."
        ),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="An OpenAI-compatible server that explains and judges, such as "
            "http://localhost:8000/v1; its key in the environment variable OPENAI_API_KEY."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="The model's name at the endpoint.")] = None,
    tokens: Annotated[int, typer.Option(help="Tokens of text to take contexts from.")] = 131_072,
    shown: Annotated[int, typer.Option(help="Contexts that who explains sees.")] = 15,
    judged: Annotated[
        int, typer.Option(help="Held-out contexts of each kind that are judged.")
    ] = 10,
    labels: Annotated[
        Path | None,
        typer.Option(help="A run, or dictionaries, whose labels.json is to have them."),
    ] = None,
    mlp: MlpUsed = Mlp.sae,
    out: Annotated[Path | None, typer.Option(help="A JSON file for all of it.")] = None,
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """Describe features in words, and score the words by detection and fuzzing beside controls.

    Example: `circuits describe bundled --site resid_post.3 --text bundled --out described.json`

    Example: `circuits describe DICTS --features resid_post.11/7,resid_post.11/9 --text corpus/
    --endpoint http://localhost:8000/v1 --name Qwen/Qwen3-8B --labels DICTS`
    """
    from circuits import scope
    from saes.scope.held_out import SplitConfig

    at_least(1, count=count, tokens=tokens, shown=shown, judged=judged)
    with bars() as report:
        record = scope.describe(
            dictionaries,
            model,
            text=text,
            features=[part.strip() for part in (features or "").split(",") if part.strip()],
            site=site,
            count=count,
            answers=_answers(answers, endpoint, name),
            tokens=tokens,
            split=SplitConfig(shown=shown, judged=judged, seed=seed),
            labels=labels,
            mlp=mlp.value,
            seed=seed,
            out=out,
            force=force,
            placement=placed(device, dtype, memory),
            report=report,
        )
    description_table(record)
    if out is not None:
        say(f"written to {out}")
    if labels is not None:
        say(f"labels {labels / 'labels.json'}")


def _answers(answers: str | None, url: str | None, name: str | None) -> Any:
    """Who answers, as `scope.describe` takes it."""
    if answers is not None and url is not None:
        raise ValueError("--answers and --endpoint both say who answers: give one of them")
    if (url is None) != (name is None):
        raise ValueError("an endpoint takes --endpoint URL and --name MODEL")
    if url is None or name is None:
        return answers
    from circuits.features.answers import endpoint
    from circuits.scope import Answerer

    asks = endpoint(url, name)
    return Answerer(name=name, explain=asks, judge=asks)


def description_table(record: Mapping[str, Any]) -> None:
    from circuits.features.describe import RULE_BY

    table = Table(
        Column("detection", justify="right"),
        Column("fuzzing", justify="right"),
        Column("feature", no_wrap=True),
        Column("description", min_width=LEAST, no_wrap=True),
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    for feature in record["features"]:
        own = [feature["scores"][kind]["own"] for kind in ("detection", "fuzzing")]
        table.add_row(
            *(_two(score["balanced_accuracy"]) for score in own),
            feature["feature"],
            Text(readable(feature["text"]) or "(nothing)"),
        )
    console.print(table)
    table = Table("balanced accuracy by", box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for kind in ("detection", "fuzzing"):
        table.add_column(kind, justify="right", no_wrap=True)
    detection, fuzzing = (record["summary"][kind] for kind in ("detection", "fuzzing"))
    for name in detection:
        table.add_row(name, _with_ends(detection[name]), _with_ends(fuzzing[name]))
    console.print(table)
    by = "the written rule" if record["by"] == RULE_BY else record["by"]
    say(f"described by {by}, judged by {record['judged_by']}; 0.50 is chance")
    if left := record["left_out"]:
        say(f"note: {counted(len(left), 'feature')} on in too few contexts left out: {left[0]}")


def _two(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _with_ends(found: Mapping[str, Any]) -> str:
    if found["mean"] is None:
        return "–"
    ends = found["interval"]
    return f"{found['mean']:.2f}" + (f" ({ends[0]:.2f} to {ends[1]:.2f})" if ends else "")

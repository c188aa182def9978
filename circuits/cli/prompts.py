"""The verbs for prompt sets: make, list."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import (
    Force,
    Model,
    Seed,
    at_least,
)
from circuits.cli.tables import (
    console,
    tasks_table,
)
from circuits.render.words import counted


class Split(StrEnum):
    train = "train"
    test = "test"


def make_prompts(
    task: Annotated[
        str,
        typer.Argument(help="A task, such as agreement_nounpp; `circuits prompts list` has all."),
    ],
    out: Annotated[Path, typer.Option(help="JSON Lines file to write.")],
    n: Annotated[int, typer.Option(help="Number of pairs.")] = 40,
    split: Annotated[
        Split,
        typer.Option(help="Words of one half: train and test share no content word."),
    ] = Split.train,
    model: Model = "bundled",
    seed: Seed = 0,
    force: Force = False,
) -> None:
    """Write a prompt set of ours in words that are one token to a model.

    Example: `circuits prompts make agreement_nounpp --n 40 --out prompts.jsonl`
    """
    from circuits.runs.prompt_sets import make_prompts

    at_least(1, n=n)
    prompts = make_prompts(task, n, split=split.value, seed=seed, model=model, out=out, force=force)
    console.print(
        f"{counted(len(prompts), 'pair')} in {out}, such as {prompts[0].clean!r}",
        highlight=False,
    )


def list_prompts(model: Model = "bundled") -> None:
    """The tasks that `circuits prompts make` knows for a model, with an example of each.

    Example: `circuits prompts list --model bundled`
    """
    from circuits.tasks import list_for

    tasks_table(list_for(model))

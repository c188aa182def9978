"""Options and choices that several verbs of the command line share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.tables import console

Model = Annotated[
    str, typer.Option(help="Hub name, local folder, .gguf file, or 'bundled'.", show_default=True)
]
Text = Annotated[
    list[str],
    typer.Option(
        help="A file or folder (txt, md, py, jsonl, parquet; also gz, zst), FILE:FIELD, "
        "hf:ORG/NAME, or 'bundled' for our English; repeat it for several."
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there, made from else.")]
TextBesideCache = Annotated[
    list[str] | None,
    typer.Option("--text", help="As for the other commands; with --cache only to judge on it."),
]


def _use(threads: int | None) -> None:
    if threads is not None:
        from hooked_qwen.threads import set_threads

        set_threads(threads)


Threads = Annotated[
    int | None,
    typer.Option(
        callback=_use, help="Threads to compute with; by default one for small matrices, else all."
    ),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder written by `circuits discover`.")]


class Mlp(StrEnum):
    sae = "sae"
    transcoder = "transcoder"


def at_least(least: int, **options: int | None) -> None:
    """Raise `ValueError` for an option below `least`; None is one that was not given."""
    for name, value in options.items():
        if value is not None and value < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {value}: expected {least} or more")


def say_found(dictionaries: str, mlp: Mlp) -> None:
    """Print what was found where: layout, sites and layers."""
    from saes.suite import load_suite

    console.print(load_suite(dictionaries, mlp=mlp.value).summary(), highlight=False, markup=False)

"""Options and choices that several verbs of the command line share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.tables import console

Model = Annotated[
    str, typer.Option(help="Hub name, local folder, .gguf file, or 'bundled'.", show_default=True)
]
Text = Annotated[
    list[str],
    typer.Option(help="Text files or folders (txt, md, py, jsonl); 'bundled' for our English."),
]
RunFolder = Annotated[Path, typer.Argument(help="A run folder written by `circuits discover`.")]


class Mlp(StrEnum):
    sae = "sae"
    transcoder = "transcoder"


def say_found(dictionaries: str, mlp: Mlp) -> None:
    """Print what was found where: layout, sites and layers."""
    from saes.suite import load_suite

    console.print(load_suite(dictionaries, mlp=mlp.value).summary(), highlight=False, markup=False)

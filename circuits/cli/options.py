"""Options and choices that several verbs of the command line share."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from circuits.attribution.estimators import ESTIMATORS
from circuits.cli.tables import console

if TYPE_CHECKING:
    from hooked_qwen.placement import Placement

Model = Annotated[
    str,
    typer.Option(
        help="Model: hub name, local folder, .gguf file, or 'bundled'.", show_default=True
    ),
]
Text = Annotated[
    list[str],
    typer.Option(
        help="A file or folder (txt, md, py, jsonl, parquet; also gz, zst), FILE:FIELD, "
        "hf:ORG/NAME, or 'bundled' for our English; repeat it for several."
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Replace what is there, even if made from something else.")
]
TextBesideCache = Annotated[
    list[str] | None,
    typer.Option("--text", help="Text, as for the other commands; with --cache only to judge on."),
]


Dictionaries = Annotated[
    str, typer.Argument(help="Dictionaries: folder, hub name, or 'bundled'.", show_default=False)
]
Layers = Annotated[str, typer.Option(help="Layers: 'all' or such as '0-3,7'.")]
Seed = Annotated[int, typer.Option(help="Seed of every random draw.")]
SeedUnused = Annotated[
    int,
    typer.Option(
        "--seed", help="Taken as by every command that has a model; nothing is drawn here."
    ),
]
SeedOfRun = Annotated[
    int | None, typer.Option("--seed", help="Seed of the random controls; by default the run's.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Tell memory and time, and do nothing.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute: cpu, cuda, cuda:1, mps, another device of torch, or auto, the "
        "first accelerator, else the CPU; several with commas between (cuda:0,cuda:1) for a model "
        "too large for one; by default auto, and for a run its own.",
        show_default=False,
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        help="GB that dictionaries and states may take on the device; by default all there is.",
        show_default=False,
    ),
]


class Dtype(StrEnum):
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


ModelDtype = Annotated[
    Dtype | None,
    typer.Option(
        "--dtype",
        help="Precision of the model, by default float32, and for a run its own; features and "
        "effects are float32 always.",
        show_default=False,
    ),
]


def placed(
    device: str | None, dtype: Dtype | None = None, memory: float | None = None
) -> "Placement":
    """Where to compute, checked before anything is read."""
    from hooked_qwen.placement import Placement, find_device

    if device is not None:
        find_device(device)
    return Placement(device=device, dtype=dtype.value if dtype else None, memory=memory)


def _hush(context: Any, quiet: bool) -> bool:
    """Silence the console until the command ends."""
    console.quiet = quiet
    context.call_on_close(_speak)
    return quiet


def _speak() -> None:
    console.quiet = False


Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", callback=_hush, help="Print nothing but notes and errors, show no progress."
    ),
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


class GraphMethod(StrEnum):
    sparse_feature = "sparse-feature"
    replacement = "replacement"


class Estimator(StrEnum):
    # A member for each row of the table; typer offers the members of an enumeration only.
    locals().update({name.replace("-", "_"): name for name in ESTIMATORS})


IG = Estimator("ig")
PATCHING = Estimator("patching")


class Bos(StrEnum):
    auto = "auto"
    always = "always"
    never = "never"


class BaselineValue(StrEnum):
    patch = "patch"
    zero = "zero"
    mean = "mean"


DictionariesToUse = Annotated[
    str, typer.Option(help="Dictionaries: folder, hub name, or 'bundled'.")
]
EstimatorUsed = Annotated[Estimator, typer.Option(help="How node effects are found.")]
NodesKept = Annotated[int, typer.Option(help="Features and errors to keep.")]
MostTargets = Annotated[
    int, typer.Option(help="Features of a replacement graph whose inputs are traced at most.")
]
BosUsed = Annotated[
    Bos,
    typer.Option(help="A BOS token before each prompt: as the tokenizer does, always, never."),
]
ReferenceUsed = Annotated[
    BaselineValue | None,
    typer.Option(help="What nodes are set to: by default their patch value, zero without patches."),
]
MlpUsed = Annotated[Mlp, typer.Option(help="Which dictionary to use where an MLP has both.")]
OutFolder = Annotated[Path, typer.Option(help="Folder to write.")]
FeatureAsked = Annotated[str, typer.Argument(help="A feature, SITE/INDEX, such as mlp_out.3/812.")]
MostTexts = Annotated[int, typer.Option(help="Texts of each source that are read at most.")]
EdgeSteps = Annotated[
    int, typer.Option(help="Points from clean to patch at which an edge is read; 0: at clean.")
]
ExampleTokens = Annotated[int, typer.Option(help="Tokens of text to look for examples in.")]


def at_least(least: int, **options: int | None) -> None:
    """Raise `ValueError` for an option below `least`; None is one that was not given."""
    for name, value in options.items():
        if value is not None and value < least:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} is {value}: expected {least} or more")


def say_found(dictionaries: str, mlp: Mlp) -> None:
    """Print what was found where: layout, sites and layers."""
    from saes.suite import load_suite

    console.print(load_suite(dictionaries, mlp=mlp.value).summary(), highlight=False)


def command_line() -> list[str]:
    """The command that was given, for the record."""
    return ["circuits", *sys.argv[1:]]

"""The verbs that show features: one, or all of a suite."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import (
    Device,
    Dictionaries,
    ExampleTokens,
    Force,
    Memory,
    Mlp,
    Model,
    ModelDtype,
    Quiet,
    Seed,
    Text,
    Threads,
    at_least,
    placed,
    say_found,
)
from circuits.cli.progress_bars import bars
from circuits.cli.tables import console


def feature(
    dictionaries: Dictionaries,
    which: Annotated[str, typer.Argument(help="SITE/INDEX, such as mlp_out.3/812.")],
    text: Text,
    model: Model = "bundled",
    tokens: ExampleTokens = 262_144,
    out: Annotated[
        Path, typer.Option(help="Folder for the examples of all features, made once, and cards.")
    ] = Path("features"),
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """What a feature is about: its strongest examples, density, promoted tokens, neighbours.

    Example: `circuits feature bundled resid_post.2/17 --text bundled`
    """
    from circuits import suites
    from circuits.features.terminal import card_view
    from hooked_qwen.texts import texts_of

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    source = suites.sources(dictionaries, model, text, placement, tokens=tokens, seed=seed)
    with bars() as report:
        card, paths = suites.feature(
            dictionaries,
            which,
            model,
            texts_of(text, seed=seed),
            out,
            tokens=tokens,
            made_from=source,
            force=force,
            seed=seed,
            placement=placement,
            report=report,
        )
    console.print(card_view(card))
    for path in paths:
        console.print(str(path), highlight=False)


def suite(
    dictionaries: Dictionaries,
    text: Text,
    model: Model = "bundled",
    tokens: ExampleTokens = 262_144,
    mlp: Annotated[
        Mlp, typer.Option(help="Which dictionary to show where an MLP has both.")
    ] = Mlp.sae,
    out: Annotated[
        Path, typer.Option(help="Folder for the examples of all features, made once, and the page.")
    ] = Path("features"),
    device: Device = None,
    dtype: ModelDtype = None,
    memory: Memory = None,
    seed: Seed = 0,
    force: Force = False,
    threads: Threads = None,
    quiet: Quiet = False,
) -> None:
    """One page with every dictionary and a search over all features.

    Example: `circuits suite bundled --text bundled`
    """
    from circuits import suites
    from hooked_qwen.texts import texts_of

    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    options = {"tokens": tokens, "mlp": mlp.value, "seed": seed}
    source = suites.sources(dictionaries, model, text, placement, **options)
    say_found(dictionaries, mlp)
    with bars() as report:
        page = suites.suite_overview(
            dictionaries,
            model,
            texts_of(text, seed=seed),
            out,
            tokens=tokens,
            mlp=mlp.value,
            made_from=source,
            force=force,
            seed=seed,
            placement=placement,
            report=report,
        )
    console.print(f"page {page}", highlight=False)

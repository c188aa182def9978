"""The verbs that show features: one, or all of a suite."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import (
    Device,
    Dictionaries,
    ExampleTokens,
    FeatureAsked,
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

OfRun = Annotated[
    Path | None,
    typer.Option(help="A run: features are called as in its graph, and the pages lead there."),
]


def _where(out: Path | None, run: Path | None) -> tuple[Path, Path | None]:
    """Where pages of features go, and the run that they are of: the one that they lie in."""
    from circuits.runs.pages import FEATURES, run_of

    if run is not None and run_of(run) != run.resolve():
        raise ValueError(f"{run} is not a finished run: no manifest.json and graph.json in it")
    folder = out or (Path(FEATURES) if run is None else run / FEATURES)
    return folder, run_of(folder) if run is None else run


def _lead_back(run: Path | None) -> None:
    """Draw a run's page anew, which then leads to the pages of its features."""
    from circuits.runs.folder import write_page

    if run is not None:
        write_page(run)


def feature(
    dictionaries: Dictionaries,
    which: FeatureAsked,
    text: Text,
    model: Model = "bundled",
    tokens: ExampleTokens = 262_144,
    run: OfRun = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the examples of all features, made once, and cards.",
            show_default="features, or RUN/features",
        ),
    ] = None,
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
    from circuits.opening import sources
    from hooked_qwen.texts import texts_of

    folder, of = _where(out, run)
    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    source = sources(dictionaries, model, text, placement, tokens=tokens, seed=seed)
    with bars() as report:
        card, paths = suites.feature(
            dictionaries,
            which,
            model,
            texts_of(text, seed=seed),
            folder,
            tokens=tokens,
            run=of,
            made_from=source,
            force=force,
            seed=seed,
            placement=placement,
            report=report,
        )
    _lead_back(of)
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
    run: OfRun = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the examples of all features, made once, and the page.",
            show_default="features, or RUN/features",
        ),
    ] = None,
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
    from circuits.opening import sources
    from hooked_qwen.texts import texts_of

    folder, of = _where(out, run)
    placement = placed(device, dtype, memory)
    at_least(1, tokens=tokens)
    options = {"tokens": tokens, "mlp": mlp.value, "seed": seed}
    source = sources(dictionaries, model, text, placement, **options)
    say_found(dictionaries, mlp)
    with bars() as report:
        page = suites.suite_overview(
            dictionaries,
            model,
            texts_of(text, seed=seed),
            folder,
            tokens=tokens,
            mlp=mlp.value,
            run=of,
            made_from=source,
            force=force,
            seed=seed,
            placement=placement,
            report=report,
        )
    _lead_back(of)
    console.print(f"page {page}", highlight=False)

"""`circuits render`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import at_least
from circuits.cli.tables import console
from circuits.render.exporters import EXPORTERS


class FigureStyle(StrEnum):
    paper = "paper"
    slides = "slides"


class BoxLabels(StrEnum):
    both = "both"
    names = "names"
    ids = "ids"


class Letters(StrEnum):
    text = "text"
    outlines = "outlines"


def render(
    run: Annotated[
        Path, typer.Argument(help="Run folder, or an ablation in it: RUN/ablations/NAME.")
    ],
    to: Annotated[
        str, typer.Option(help=f"Formats, of {', '.join(EXPORTERS)}, separated by commas.")
    ] = "html",
    nodes: Annotated[
        int, typer.Option(help="Nodes in the figure, at most: each with its path to the output.")
    ] = 25,
    width: Annotated[
        str | None,
        typer.Option(
            help="Width: 3.3in or 6.75in, one or two columns of a paper; by default what holds it."
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            help="A state saved from the page: its groups as one box each, its labels, and with "
            "groups or pinned nodes only what connects these."
        ),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(help="A run, ablation or graph.json to draw beside it, in one comparison.*."),
    ] = None,
    style: Annotated[
        FigureStyle,
        typer.Option(help="What it is for; slides: 18 points, 13.33 x 7.5 in, three sites."),
    ] = FigureStyle.paper,
    labels: Annotated[
        BoxLabels,
        typer.Option(help="What boxes say: names of features, ids (layer/index), or both."),
    ] = BoxLabels.both,
    letters: Annotated[
        Letters, typer.Option(help="Text in SVG: kept, with its font in the file, or outlines.")
    ] = Letters.text,
    captions: Annotated[
        bool, typer.Option("--captions", help="Write graph.caption.tex too, a caption in LaTeX.")
    ] = False,
    features_url: Annotated[
        str | None,
        typer.Option(
            help="For neuronpedia, the address (https) where its features/ will be hosted, without "
            "which Neuronpedia shows labels alone."
        ),
    ] = None,
) -> None:
    """Draw a run, or an ablation: the page, figures for a paper, files for other programs.

    A figure is a connected circuit with text of 6.5 points, at most 9 inches high: fewer nodes are
    drawn before it is higher, and its legend says so. Edges with a circle stand for paths that
    there is no room for.

    Example: `circuits render run --to html,svg,pdf`

    Example: `circuits render run --to pdf --groups state.json --width 3.3in`

    Example: `circuits render run --to svg --against other`
    """
    from circuits.render.figure.figure_config import FigureConfig, width_in
    from circuits.runs.render_run import render_run

    at_least(1, nodes=nodes)
    config = FigureConfig(
        width=None if width is None else width_in(width),
        style=style.value,
        labels=labels.value,
        letters=letters.value,
        captions=captions,
    )
    written = render_run(
        run,
        to.split(","),
        nodes,
        figure=config,
        groups=groups,
        against=against,
        features_url=features_url,
    )
    for path in written:
        console.print(str(path), highlight=False)

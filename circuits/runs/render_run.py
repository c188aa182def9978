"""`circuits render`: pages, figures and files for other programs of a run."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from circuits.render.exporters import FIGURE_FORMATS, exporters
from circuits.render.figure.figure_config import FigureConfig
from circuits.runs.drawn import compared_with, drawn_of, hosted_at


def render_run(
    folder: Path,
    formats: Sequence[str],
    nodes: int,
    *,
    figure: FigureConfig | None = None,
    groups: Path | None = None,
    against: Path | None = None,
    features_url: str | None = None,
) -> list[Path]:
    """Write the page, figures or files for other programs of a run, or of one of its ablations.

    Once it is verified, figures of the curves too. `groups` is a saved state of the page, whose
    groups, pinned nodes and labels the figure has. `against` is another run: the figure has both.
    `features_url` is where the features of `neuronpedia` will be hosted.

    Raises `ValueError` listing the formats for another one, and for no address of the web.
    """
    formats = [name.strip() for name in formats]
    chosen = exporters(formats)
    hosted = hosted_at(features_url, formats)
    if against and (others := set(formats) - set(FIGURE_FORMATS)):
        raise ValueError(
            f"two circuits are drawn as {', '.join(FIGURE_FORMATS)}, got {', '.join(others)}: "
            "their page is `circuits compare`"
        )
    drawn = drawn_of(folder, nodes=nodes, figure=figure, groups=groups)
    if against:
        drawn = compared_with(drawn, against)
    drawn = replace(drawn, features_url=hosted)
    return list(dict.fromkeys(path for name, export in chosen for path in export(drawn, name)))

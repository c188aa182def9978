"""The circuit as a static figure for a paper or a slide: vector graphics, or pixels."""

from pathlib import Path
from typing import Any

import networkx as nx
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path as Outline

from circuits.render.charts.curves import curves_figure
from circuits.render.connected import circuit_of
from circuits.render.exporters import Drawn
from circuits.render.figure import ink
from circuits.render.figure.drawing import Picture, picture
from circuits.render.figure.figure_config import FigureConfig
from circuits.render.figure.latex_caption import write_caption
from circuits.render.figure.marks import Mark, Rect, Shape, Stroke, Trace
from circuits.render.figure.sheet import TEXT
from circuits.render.figure.tikz import DASH, write_tikz
from circuits.render.interventions import Intervention
from circuits.render.layout import Layout
from circuits.render.words import caption, readable
from circuits.saved_state import SavedState
from hooked_qwen.notices import notify

__all__ = ["curves_figure", "figure", "strongest", "undrawable"]

TEX = ".tex"
strongest = circuit_of


def export_figures(drawn: Drawn, suffix: str) -> list[Path]:
    """The graph as a figure, its caption where one is asked for, and the curves once verified."""
    written = [drawn.folder / f"{drawn.stem}.{suffix}"]
    shown = figure(
        drawn.graph,
        written[0],
        max_nodes=drawn.nodes,
        config=drawn.figure,
        state=drawn.state,
        intervention=drawn.intervention,
    )
    if drawn.figure.captions:
        written.append(drawn.folder / f"{drawn.stem}.caption.tex")
        write_caption(
            shown, drawn.graph, drawn.verification, written[-1], intervention=drawn.intervention
        )
    if lacking := undrawable(drawn.graph):
        notify(
            f"no installed font has {' '.join(lacking[:10])}: the figure writes their code "
            "points; install one that has them, such as Noto Sans CJK (fonts-noto-cjk)"
        )
    if drawn.verification is not None and suffix != TEX.removeprefix("."):
        written.append(drawn.folder / f"verification.{suffix}")
        curves_figure(drawn.verification, written[-1])
    return written


def figure(
    graph: nx.DiGraph,
    path: Path,
    *,
    layout: Layout | None = None,
    max_nodes: int = 25,
    config: FigureConfig | None = None,
    state: SavedState | None = None,
    intervention: Intervention | None = None,
) -> Picture:
    """Write the circuit of at most `max_nodes` nodes as `.svg`, `.pdf`, `.png` or `.tex` (TikZ).

    3.3 inches wide, or 6.75 where it needs that, and 9 high at most: fewer nodes are drawn before
    it is higher, and the legend says so. The same graph gives the same bytes.

    Raises `ValueError` for another suffix, and where not even one path fits.
    """
    if path.suffix.lower() != TEX:
        ink.checked_suffix(path)
    config = config or FigureConfig()
    with ink.fixed_style(config.letters):
        shown = picture(graph, max_nodes=max_nodes, layout=layout, config=config, state=state,
                        intervention=intervention)  # fmt: skip
        (write_tikz if path.suffix.lower() == TEX else _save)(shown, path)
    return shown


def _save(shown: Picture, path: Path) -> None:
    width, height = shown.drawing.width, shown.drawing.height
    sheet = ink.blank(width * shown.scale, height * shown.scale)
    axes = sheet.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    axes.axis("off")
    for order, mark in enumerate(shown.marks):
        _draw(axes, mark, shown.scale, order)
    ink.save(sheet, path)


def _draw(axes: Axes, mark: Mark, scale: float, order: int) -> None:
    match mark:
        case Rect():
            box: dict[str, Any] = {"boxstyle": f"round,pad=0,rounding_size={mark.rounded}"}
            size = (mark.corner, mark.width, mark.height)
            patch = FancyBboxPatch(*size, **box) if mark.rounded else Rectangle(*size)
        case Shape():
            patch = Polygon(mark.corners, closed=True)
        case Trace():
            points = [mark.curve.start, *(p for piece in mark.curve.pieces for p in piece)]
            patch = PathPatch(Outline(points, [1, *[4] * (len(points) - 1)]))
        case _:
            axes.text(*mark.at, mark.text, size=TEXT * scale, color=mark.colour, ha=mark.anchor,
                      va="center_baseline", zorder=order)  # fmt: skip
            return
    patch.set_facecolor("none" if isinstance(mark, Trace) else mark.fill)
    _set_stroke(patch, mark.stroke, scale)
    patch.set_zorder(order)
    axes.add_patch(patch)


def _set_stroke(patch: Any, stroke: Stroke | None, scale: float) -> None:
    patch.set_edgecolor("none" if stroke is None else stroke.colour)
    patch.set_linewidth(0.0 if stroke is None else stroke.width * scale)
    patch.set_linestyle((0, DASH) if stroke is not None and stroke.dashed else "solid")


def undrawable(graph: nx.DiGraph) -> list[str]:
    """Characters of the graph's captions and tokens that no installed font has, in their order."""
    texts = [caption(node, data) for node, data in graph.nodes(data=True)]
    texts += [str(token) for token in graph.graph.get("columns") or ()]
    found = (c for text in texts for c in readable(text) if not ink.has_glyph(c))
    return list(dict.fromkeys(found))

"""The circuit as a static vector figure for a paper, from the layout that the page uses.

Solid lines support the answer, dashed ones oppose it; lines run upwards and are as wide as the
edge is strong. Rounded box: feature; square: token or output; pointed: error.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Patch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path as Curve
from numpy.typing import NDArray

from circuits.graph import Node, ordered
from circuits.render import ink
from circuits.render.boxes import LEADING, MARGIN, POINT, SMALL, TEXT, Box, Sheet, sheet
from circuits.render.curves import curves_figure
from circuits.render.exporters import Drawn
from circuits.render.layout import Layout
from circuits.render.layout import layout as lay_out
from circuits.render.words import (
    OPPOSES,
    SUPPORTS,
    acts_on_target,
    caption,
    counted,
    edge_support,
    readable,
    stance,
    support,
)
from hooked_qwen.notices import notify

__all__ = ["curves_figure", "figure", "strongest", "undrawable"]

EDGES_PER_NODE = 2
THINNEST, THICKEST = 0.35, 1.7  # points
DASH = (3.0, 1.6)
BENDS = (0.0, -0.25, 0.25, -0.5, 0.5, -0.9, 0.9, -1.3, 1.3)  # sideways, in
SAMPLES = 28


def export_figures(drawn: Drawn, suffix: str) -> list[Path]:
    """The graph as a figure, and the curves once it is verified."""
    written = [drawn.folder / f"graph.{suffix}"]
    figure(drawn.graph, written[0], max_nodes=drawn.nodes)
    if lacking := undrawable(drawn.graph):
        notify(
            f"no installed font has {' '.join(lacking[:10])}: the figure writes their code "
            "points; install one that has them, such as Noto Sans CJK (fonts-noto-cjk)"
        )
    if drawn.verification is not None:
        written.append(drawn.folder / f"verification.{suffix}")
        curves_figure(drawn.verification, written[1])
    return written


def figure(
    graph: nx.DiGraph, path: Path, *, layout: Layout | None = None, max_nodes: int = 25
) -> None:
    """Write the strongest `max_nodes` nodes of `graph` as `.svg` or `.pdf`.

    3.3 inches wide, or 7 where the columns need it. The same graph gives the same bytes.

    Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    circuit = strongest(graph, max_nodes)
    with ink.fixed_style():
        drawing = sheet(circuit, layout or lay_out(circuit))
        picture = ink.blank(drawing.width, drawing.height)
        axes = _axes(picture, drawing)
        _draw_bands(axes, drawing)
        _draw_edges(axes, circuit, drawing)
        _draw_nodes(axes, circuit, drawing)
        _draw_legend(axes, drawing, circuit, _counts(circuit, graph))
        ink.save(picture, path)


def strongest(graph: nx.DiGraph, max_nodes: int) -> nx.DiGraph:
    """The outputs and the strongest nodes, the strongest edges, and each node's strongest one."""
    ranked = sorted(ordered(graph), key=lambda node: node.kind != "logit")[:max_nodes]
    part = nx.DiGraph(graph.subgraph(ranked))
    edges = sorted(part.edges(data="weight"), key=lambda e: (-abs(e[2]), str(e[0]), str(e[1])))
    kept = set(edges[: EDGES_PER_NODE * len(ranked)])
    for node in ranked:
        kept |= set([edge for edge in edges if node in edge[:2]][:1])
    part.remove_edges_from([edge[:2] for edge in edges if edge not in kept])
    return part


def _axes(picture: Figure, drawing: Sheet) -> Axes:
    """Axes whose data units are inches from the sheet's top left corner."""
    axes = picture.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    axes.axis("off")
    return axes


def _draw_bands(axes: Axes, drawing: Sheet) -> None:
    for row in drawing.rows:
        if row.band.layer is not None and row.band.layer % 2 == 0:
            size = (drawing.width - drawing.axis, row.bottom - row.top)
            axes.add_patch(Rectangle((drawing.axis, row.top), *size, color=ink.STRIPE, lw=0))
        name = {"logit": "output", "embed": "tokens"}.get(row.band.site, row.band.site)
        middle = (row.top + row.bottom) / 2
        _text(axes, drawing.axis - 0.06, middle, name, size=SMALL, color=ink.SOFT, ha="right")
    floor = drawing.rows[-1].bottom if drawing.rows else MARGIN
    for x, token in drawing.tokens:
        _text(axes, x, floor + 0.09, token, size=SMALL, color="black")


def _draw_nodes(axes: Axes, circuit: nx.DiGraph, drawing: Sheet) -> None:
    effects = {node: support(circuit.nodes[node]["effect"], circuit.graph) for node in circuit}
    largest = max((abs(value or 0.0) for value in effects.values()), default=0.0) or 1.0
    for node, box in drawing.boxes.items():
        group, share = stance(effects[node]), abs(effects[node] or 0.0) / largest
        outline = _outline(node, box)
        outline.set_facecolor(ink.tint(ink.COLOURS[group], 0.06 + 0.3 * share))
        outline.set_edgecolor(ink.COLOURS[group])
        outline.set_linewidth(0.7)
        outline.set_linestyle(_dashes(group))
        outline.set_zorder(3)
        axes.add_patch(outline)
        first = box.top + box.height / 2 - (len(box.lines) - 1) / 2 * LEADING
        for index, line in enumerate(box.lines):
            _text(axes, box.x, first + index * LEADING, line, size=TEXT, color="black")


def _outline(node: Node, box: Box) -> Patch:
    if node.kind == "error":
        middle, left, right = box.top + box.height / 2, box.left, box.left + box.width
        upper = [(left, middle), (left + POINT, box.top), (right - POINT, box.top)]
        lower = [(right, middle), (right - POINT, box.bottom), (left + POINT, box.bottom)]
        corners = [*upper, *lower]
        return Polygon(corners, closed=True)
    corner = (box.left, box.top)
    if node.kind in ("token", "logit"):
        return Rectangle(corner, box.width, box.height)
    return FancyBboxPatch(corner, box.width, box.height, boxstyle="round,pad=0,rounding_size=0.045")


def _draw_edges(axes: Axes, circuit: nx.DiGraph, drawing: Sheet) -> None:
    """Weakest first, so that the strong ones lie on top; each takes the bend that hits fewest."""
    edges = sorted(circuit.edges(data="weight"), key=lambda e: (abs(e[2]), str(e[0]), str(e[1])))
    largest = max((abs(weight) for *_, weight in edges), default=0.0) or 1.0
    outgoing, incoming = _ports(circuit, drawing, "out"), _ports(circuit, drawing, "in")
    for source, target, weight in edges:
        start = (outgoing[source, target], drawing.boxes[source].top)
        end = (incoming[source, target], drawing.boxes[target].bottom)
        others = [box for node, box in drawing.boxes.items() if node not in (source, target)]
        group, share = stance(edge_support(weight, circuit.graph)), abs(weight) / largest
        axes.add_patch(
            PathPatch(
                Curve(_route(start, end, others, drawing), [1, 4, 4, 4]),
                facecolor="none",
                edgecolor=ink.tint(ink.COLOURS[group], 0.45 + 0.5 * share),
                linewidth=THINNEST + (THICKEST - THINNEST) * share,
                linestyle=_dashes(group),
                zorder=2,
            )
        )


def _ports(circuit: nx.DiGraph, drawing: Sheet, side: str) -> Mapping[tuple[Node, Node], float]:
    """Where each edge meets its box: spread over the middle of it, in the order of the far ends."""
    ports: dict[tuple[Node, Node], float] = {}
    for node, box in drawing.boxes.items():
        far = circuit.successors(node) if side == "out" else circuit.predecessors(node)
        ends = sorted(far, key=lambda n: (drawing.boxes[n].x, str(n)))
        for index, other in enumerate(ends):
            offset = (index + 1) / (len(ends) + 1) - 0.5
            edge = (node, other) if side == "out" else (other, node)
            ports[edge] = box.x + 0.7 * box.width * offset
    return ports


def _route(
    start: tuple[float, float],
    end: tuple[float, float],
    boxes: Sequence[Box],
    drawing: Sheet,
) -> NDArray[np.float64]:
    """Control points of the cubic Bezier curve from `start` to `end` that crosses fewest boxes."""

    def cost(bend: float) -> float:
        points = _samples(_control(start, end, bend))
        x, y = points[:, 0], points[:, 1]
        hits = sum(
            np.any((x > b.left) & (x < b.left + b.width) & (y > b.top) & (y < b.bottom))
            for b in boxes
        )
        outside = bool(np.any((x < drawing.axis) | (x > drawing.width - MARGIN)))
        return float(hits) + 3 * outside + 0.4 * abs(bend)

    return _control(start, end, min(BENDS, key=cost))


def _control(
    start: tuple[float, float], end: tuple[float, float], bend: float
) -> NDArray[np.float64]:
    rise = 0.45 * (start[1] - end[1])
    return np.array(
        [start, (start[0] + bend, start[1] - rise), (end[0] + bend, end[1] + rise), end]
    )


def _samples(control: NDArray[np.float64]) -> NDArray[np.float64]:
    t = np.linspace(0.03, 0.97, SAMPLES)[:, None]
    a, b, c, d = control
    return (1 - t) ** 3 * a + 3 * t * (1 - t) ** 2 * b + 3 * t**2 * (1 - t) * c + t**3 * d


def _draw_legend(axes: Axes, drawing: Sheet, circuit: nx.DiGraph, counts: str) -> None:
    y = drawing.height - MARGIN - 0.06
    x = MARGIN
    targets = {SUPPORTS: " / raises", OPPOSES: " / lowers"}
    for group in (SUPPORTS, OPPOSES):
        words = group + (targets[group] if acts_on_target(circuit.graph) else "")
        stroke = {"color": ink.COLOURS[group], "linestyle": _dashes(group)}
        axes.add_line(Line2D([x, x + 0.2], [y, y], linewidth=1.1, **stroke))
        _text(axes, x + 0.25, y, words, size=SMALL, color="black", ha="left")
        x += 0.37 + ink.measure(words, SMALL)
    _text(axes, drawing.width - MARGIN, y, counts, size=SMALL, color=ink.SOFT, ha="right")


def _dashes(group: str) -> Any:
    return (0, DASH) if group == OPPOSES else "solid"


def undrawable(graph: nx.DiGraph) -> list[str]:
    """Characters of the graph's captions and tokens that no installed font has, in their order."""
    texts = [caption(node, data) for node, data in graph.nodes(data=True)]
    texts += [str(token) for token in graph.graph.get("columns") or ()]
    found = (c for text in texts for c in readable(text) if not ink.has_glyph(c))
    return list(dict.fromkeys(found))


def _counts(circuit: nx.DiGraph, graph: nx.DiGraph) -> str:
    return (
        f"{len(circuit)} of {counted(len(graph), 'node')}, "
        f"{circuit.number_of_edges()} of {counted(graph.number_of_edges(), 'edge')}"
    )


def _text(
    axes: Axes, x: float, y: float, text: str, *, size: float, color: str, ha: str = "center"
) -> None:
    axes.text(
        x, y, ink.drawable(text), size=size, color=color, ha=ha, va="center_baseline", zorder=4
    )

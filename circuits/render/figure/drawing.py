"""A circuit as a printed picture: what is drawn, where, and the marks that it is made of.

Solid lines that end in a small arrowhead support the answer; dashed ones that end in a bar oppose
it. Lines run upwards unless their ends stand otherwise, and are as wide as the edge is strong.
Rounded box: feature; double: group; square: token or output; pointed: error.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import networkx as nx

from circuits.graph import Edge, Node
from circuits.render.connected import circuit_of
from circuits.render.figure import ink
from circuits.render.figure.boxes import band_name, sheet
from circuits.render.figure.figure_config import STYLES, FigureConfig
from circuits.render.figure.legend import folded_edges, legend_entries, legend_lines, legend_marks
from circuits.render.figure.marks import Mark, Rect, Shape, Stroke, TextMark, Trace
from circuits.render.figure.routes import BezierCurve, middle, routes
from circuits.render.figure.sheet import (
    FOOT,
    HEAD,
    LEADING,
    MARGIN,
    PAD,
    POINT,
    TEXT,
    Box,
    BoxText,
    Sheet,
)
from circuits.render.interventions import Intervention, done_to
from circuits.render.layout import Layout
from circuits.render.supernodes import places_of, with_state
from circuits.render.words import (
    NEUTRAL,
    OPPOSES,
    caption,
    counted,
    edge_support,
    readable,
    stance,
    support,
)
from circuits.saved_state import SavedState

THINNEST, THICKEST = 0.4, 1.8  # points
FOLD = 0.05  # in, across the circle on an edge that stands for a path


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure before anything draws it."""

    circuit: nx.DiGraph
    "what is drawn of the graph"
    drawing: Sheet
    curves: Mapping[Edge, BezierCurve]
    legend: tuple[tuple[str, ...], ...]
    "its lines, each of some entries"
    scale: float
    "of the printed size to the sheet's"

    @property
    def marks(self) -> list[Mark]:
        return [
            *_bands(self.drawing),
            *_edges(self),
            *_folds(self),
            *_nodes(self),
            *legend_marks(self.legend, self.drawing),
        ]


def picture(
    graph: nx.DiGraph,
    *,
    max_nodes: int = 25,
    layout: Layout | None = None,
    config: FigureConfig | None = None,
    state: SavedState | None = None,
    intervention: Intervention | None = None,
) -> Picture:
    """The circuit of at most `max_nodes` nodes of `graph`, or of as many as a page holds.

    With a `state`, its groups are one box each; groups and pinned nodes are drawn first, and where
    there are any, only what connects them besides. `intervention` is what left this graph.

    Raises `ValueError` where not even one path fits a page.
    """
    config, state = config or FigureConfig(), state or SavedState()
    style = STYLES[config.style]
    whole = with_state(graph, state)
    first = [Node("group", name) for name in state.groups]
    first += [node for node in state.pinned if node in whole]

    def fitted(n: int) -> Picture | None:
        sites = None if first else style.sites
        circuit = circuit_of(whole, n, first=first, fill=not first, sites=sites)
        legend = legend_entries(circuit, graph, cut=n < max_nodes)
        drawing = sheet(
            circuit,
            layout or places_of(circuit),
            {node: words_of(node, circuit, config.labels, intervention) for node in circuit},
            pages=config.pages,
            tallest=style.tallest,
            foot=lambda page: FOOT + LEADING * (len(legend_lines(legend, page)) - 1),
        )
        if drawing is None:
            return None
        return Picture(
            circuit=circuit,
            drawing=drawing,
            curves=routes(circuit, drawing),
            legend=tuple(legend_lines(legend, drawing.width)),
            scale=style.scale,
        )

    found = fitted(max_nodes)
    fits, fails = 0, max_nodes
    while found is None or fails - fits > 1:
        if found is not None and fits == 0:
            break
        n = (fits + fails) // 2
        if n == 0:
            raise ValueError(
                f"not even one path of the circuit fits a page of {config.pages[-1]:.3g} in x "
                f"{style.tallest:.3g} in: try --width 6.75in, or --labels ids"
            )
        if smaller := fitted(n):
            found, fits = smaller, n
        else:
            fails = n
    return found


def words_of(
    node: Node, circuit: nx.DiGraph, labels: str, intervention: Intervention | None = None
) -> BoxText:
    """What a node's box says: its label, layer and index, and what an intervention did."""
    data = circuit.nodes[node]
    label, name = caption(node, data), _name(node, data, circuit.graph)
    if label == f"error of {node.site}":  # the band says of which site
        label = "error"
    if node.kind == "feature" and (labels == "ids" or label == f"#{node.feature}"):
        label = ""
    elif node.kind == "feature" and labels == "names":
        name = ""
    badge = _badge(node, data, intervention)
    return BoxText(label=label or ("" if name else " "), name=name, badge=badge)


def _name(node: Node, data: Mapping[str, Any], meta: Mapping[str, Any]) -> str:
    """What a paper cites: layer and index, `4/15`; of a group how many there are and their sum.

    Of an output its probability, where the graph has it.
    """
    if node.kind == "group":
        count = counted(len(data.get("members") or ()), "feature")
        value = support(data.get("effect"), meta)
        return count if value is None else f"{count}, {_signed(value)}"
    if node.kind == "logit" and data.get("probability") is not None:
        return f"p = {data['probability']:.2g}"
    if node.kind != "feature":
        return ""
    kind, _, layer = node.site.partition(".")
    return readable(f"{layer or kind}/{node.feature}")


def _signed(value: float) -> str:
    return f"{value:+.2g}".replace("-", "\N{MINUS SIGN}")


def _badge(node: Node, data: Mapping[str, Any], intervention: Intervention | None) -> str:
    """What was done to a node; at the output, what became of the metric by it.

    A graph may say it itself, as one of two circuits laid over each other does.
    """
    if "badge" in data:
        return str(data["badge"])
    if node.kind == "logit" and intervention is not None:
        return intervention.said
    return done_to(data)


def _bands(drawing: Sheet) -> Iterator[Mark]:
    for row in drawing.rows:
        if row.band.shaded:
            yield Rect(
                corner=(drawing.axis, row.top),
                width=drawing.width - drawing.axis,
                height=row.bottom - row.top,
                fill=ink.STRIPE,
            )
        at = (drawing.axis - 0.05, (row.top + row.bottom) / 2)
        yield TextMark(
            at=at, text=ink.drawable(band_name(row.band)), colour=ink.SOFT, anchor="right"
        )
    floor = drawing.rows[-1].bottom if drawing.rows else MARGIN
    for head in drawing.heads:
        colour = ink.SOFT if head.folded else "#000000"
        for index, line in enumerate(head.lines):
            at = (head.x, floor + 0.03 + (index + 0.5) * LEADING)
            yield TextMark(at=at, text=ink.drawable(line), colour=colour)


def _edges(shown: Picture) -> Iterator[Mark]:
    """Weakest first, so that the strong ones lie on top."""
    edges = sorted(shown.curves, key=lambda e: (abs(_weight(shown, e)), str(e[0]), str(e[1])))
    largest = max((abs(_weight(shown, edge)) for edge in edges), default=0.0) or 1.0
    for edge in edges:
        weight, curve = _weight(shown, edge), shown.curves[edge]
        group, share = stance(edge_support(weight, shown.circuit.graph)), abs(weight) / largest
        width = THINNEST + (THICKEST - THINNEST) * share
        colour = ink.tint(ink.COLOURS[group], 0.55 + 0.45 * share)
        yield Trace(curve=curve, stroke=Stroke(colour=colour, width=width, dashed=group == OPPOSES))
        yield _end(curve.end, group, colour, width)


def _folds(shown: Picture) -> Iterator[Mark]:
    """A small circle on each edge that stands for a path."""
    for edge in folded_edges(shown.circuit):
        x, y = middle(shown.curves[edge], shown.drawing)
        group = stance(edge_support(_weight(shown, edge), shown.circuit.graph))
        yield Rect(
            corner=(x - FOLD / 2, y - FOLD / 2),
            width=FOLD,
            height=FOLD,
            fill="#ffffff",
            stroke=Stroke(colour=ink.COLOURS[group], width=0.7),
            rounded=FOLD / 2,
        )


def _weight(shown: Picture, edge: Edge) -> float:
    return float(shown.circuit.edges[edge]["weight"])


def _end(at: tuple[float, float], group: str, colour: str, width: float) -> Mark:
    """A bar across the end of an edge that opposes, an arrowhead on one that supports."""
    (x, y), wide = at, HEAD * (0.7 + width / THICKEST)
    if group == OPPOSES:
        bar = BezierCurve(
            (x - wide, y + 0.012), (((x, y + 0.012), (x, y + 0.012), (x + wide, y + 0.012)),)
        )
        return Trace(curve=bar, stroke=Stroke(colour=colour, width=max(width, 0.8)))
    half = wide / 2
    return Shape(corners=((x, y), (x - half, y + wide), (x + half, y + wide)), fill=colour)


def _nodes(shown: Picture) -> Iterator[Mark]:
    graph = shown.circuit
    effects = {node: support(graph.nodes[node]["effect"], graph.graph) for node in graph}
    largest = max((abs(value or 0.0) for value in effects.values()), default=0.0) or 1.0
    for node, box in shown.drawing.boxes.items():
        ablated = bool(graph.nodes[node].get("ablated"))
        group = NEUTRAL if ablated else stance(effects[node])
        share = abs(effects[node] or 0.0) / largest
        fill = ink.tint(ink.COLOURS[group], 0.06 + 0.3 * share)
        stroke = Stroke(
            colour=ink.COLOURS[group],
            width=1.3 if node.kind == "group" else 0.7,
            dashed=ablated or group == OPPOSES,
        )
        yield _outline(node, box, fill, stroke)
        yield from _texts(box)


def _outline(node: Node, box: Box, fill: str, stroke: Stroke) -> Mark:
    if node.kind == "error":
        middle, left, right = box.top + box.height / 2, box.left, box.right
        upper = ((left, middle), (left + POINT, box.top), (right - POINT, box.top))
        lower = ((right, middle), (right - POINT, box.bottom), (left + POINT, box.bottom))
        return Shape(corners=(*upper, *lower), fill=fill, stroke=stroke)
    return Rect(
        corner=(box.left, box.top),
        width=box.width,
        height=box.height,
        fill=fill,
        stroke=stroke,
        rounded=0.0 if node.kind in ("token", "logit") else 0.045,
    )


def _texts(box: Box) -> Iterator[Mark]:
    """Label in black, name in grey, and a badge in white on a dark strip."""
    for index, line in enumerate(box.texts):
        y = box.top + PAD + (index + 0.5) * LEADING
        colour = "#000000" if index < len(box.lines) else ink.SOFT
        if box.badge and index == len(box.texts) - 1:
            inset = PAD / 2
            width = ink.measure(line, TEXT) + PAD
            yield Rect(
                corner=(box.x - width / 2, y - LEADING / 2),
                width=width,
                height=LEADING + inset,
                fill=ink.DARK,
            )
            y, colour = y + inset / 2, "#ffffff"
        yield TextMark(at=(box.x, y), text=line, colour=colour)

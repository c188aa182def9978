"""The legend of a figure: the two kinds of lines, and how much of the graph is drawn."""

from collections.abc import Iterator, Sequence

import networkx as nx

from circuits.graph import Edge
from circuits.render.figure import ink
from circuits.render.figure.marks import Mark, Shape, Stroke, TextMark, Trace
from circuits.render.figure.routes import BezierCurve
from circuits.render.figure.sheet import HEAD, LEADING, MARGIN, TEXT, Sheet
from circuits.render.words import OPPOSES, SUPPORTS, acts_on_target, counted

COUNTS = 4  # lines of the legend, at most, for how much is drawn
SAMPLE = 0.2  # in, of a line in the legend


def _key(circuit: nx.DiGraph, folded: list[Edge]) -> str:
    """What a circle on an edge says: how many nodes it leaves out there."""
    if not folded:
        return ""
    left_out = sorted({len(circuit.edges[edge]["via"]) for edge in folded})
    span = counted(left_out[-1], "node")
    return f"○: by way of {f'{left_out[0]} to ' if len(left_out) > 1 else ''}{span}; "


def folded_edges(circuit: nx.DiGraph) -> list[Edge]:
    """Edges of a circuit that stand for paths, some nodes of which are not drawn."""
    return [(u, v) for u, v, via in circuit.edges(data="via") if via]


def legend_entries(circuit: nx.DiGraph, graph: nx.DiGraph, *, cut: bool) -> list[str]:
    """The two kinds of lines, and how much of the graph is drawn."""
    targets = {SUPPORTS: " / raises", OPPOSES: " / lowers"}
    kinds = [g + (targets[g] if acts_on_target(graph.graph) else "") for g in (SUPPORTS, OPPOSES)]
    inside = sum(len(data.get("members") or [0]) for _, data in circuit.nodes(data=True))
    groups = sum(node.kind == "group" for node in circuit)
    of_groups = f" in {counted(len(circuit), 'box', 'boxes')}" if groups else ""
    nodes = f"{inside} of {counted(len(graph), 'node')}{of_groups}"
    folded = folded_edges(circuit)
    drawn = circuit.number_of_edges() - len(folded)
    edges = f"{drawn} of {counted(graph.number_of_edges(), 'edge')}"
    told = [graph.graph["legend"]] if "legend" in graph.graph else []
    counts = _key(circuit, folded) + ", ".join([*told, nodes, edges])
    return [*kinds, ink.drawable(counts) + (" (more do not fit)" if cut else "")]


def legend_lines(entries: list[str], page: float) -> list[tuple[str, ...]]:
    """The legend in one line, or the counts in lines under the kinds where it is too long."""
    kinds = sum(SAMPLE + 0.17 + ink.measure(words, TEXT) for words in entries[:2])
    counts = ink.measure(entries[2], TEXT)
    if kinds + counts + 2 * MARGIN <= page:
        return [tuple(entries)]
    folded = ink.fold(entries[2], TEXT, page - 2 * MARGIN, COUNTS)
    return [tuple(entries[:2]), *((line,) for line in folded)]


def legend_marks(legend: Sequence[tuple[str, ...]], drawing: Sheet) -> Iterator[Mark]:
    """The legend's lines at the foot of a drawing."""
    y = drawing.height - MARGIN - 0.06 - LEADING * (len(legend) - 1)
    x = MARGIN
    for group, words in zip((SUPPORTS, OPPOSES), legend[0], strict=False):
        colour, end = ink.COLOURS[group], x + SAMPLE
        line = BezierCurve((x, y), (((x, y), (end, y), (end, y)),))
        yield Trace(curve=line, stroke=Stroke(colour=colour, width=1.1, dashed=group == OPPOSES))
        if group == OPPOSES:
            bar = BezierCurve((end, y - HEAD), (((end, y), (end, y), (end, y + HEAD)),))
            yield Trace(curve=bar, stroke=Stroke(colour=colour, width=1.1))
        else:
            tip = ((end + HEAD, y), (end, y - HEAD / 2), (end, y + HEAD / 2))
            yield Shape(corners=tip, fill=colour)
        yield TextMark(at=(end + 0.06, y), text=words, anchor="left")
        x = end + 0.17 + ink.measure(words, TEXT)
    if len(legend) == 1:
        at = (drawing.width - MARGIN, y)
        yield TextMark(at=at, text=legend[0][-1], colour=ink.SOFT, anchor="right")
    for index, (words,) in enumerate(legend[1:], start=1):
        at = (MARGIN, y + index * LEADING)
        yield TextMark(at=at, text=words, colour=ink.SOFT, anchor="left")

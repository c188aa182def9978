"""From the shared layout to a printed sheet: boxes as wide as their text, in bands and columns.

Units are inches, x to the right and y downwards from the sheet's top left corner. The order of
bands, columns and nodes is the layout's; only the distances are those of print.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import networkx as nx

from circuits.graph import Node
from circuits.render.ink import fold, measure
from circuits.render.layout import Band, Layout
from circuits.render.words import caption

TEXT, SMALL = 6.0, 5.5  # points
LEADING = 0.098  # line height, in
PAD, GAP, BAND_GAP = 0.038, 0.05, 0.2
MARGIN, FOOT = 0.04, 0.2
POINT = 0.05  # how far the sides of an error's box stick out
PAGES = (3.3, 7.0)  # one and two columns of a paper
TALLEST = 4.5  # in, for a figure of one column
ROOMS = (1.15, 0.9, 0.7, 0.55)  # widest text of a box
ACROSS = (4, 3, 2, 1)
TOKEN_ROOM = 0.42

Cells = Mapping[tuple[int, int], Sequence[Node]]


@dataclass(frozen=True, kw_only=True)
class Box:
    """A node's box and the lines of text in it."""

    left: float  # in
    top: float  # in
    width: float  # in
    height: float  # in
    lines: tuple[str, ...]

    @property
    def x(self) -> float:
        return self.left + self.width / 2

    @property
    def bottom(self) -> float:
        return self.top + self.height


@dataclass(frozen=True, kw_only=True)
class Row:
    """A band on the sheet."""

    band: Band
    top: float  # in
    bottom: float  # in


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A figure before it is drawn: its size, its boxes, its axes."""

    width: float  # in
    height: float  # in
    axis: float  # in, where the columns begin
    boxes: Mapping[Node, Box]
    rows: tuple[Row, ...]
    tokens: tuple[tuple[float, str], ...]  # centre of each column, in, and its text


def sheet(graph: nx.DiGraph, places: Layout) -> Sheet:
    """Boxes for every node of `graph`, on the narrowest page that holds them.

    A paper's single column comes first, unless the figure would be taller than a page wants;
    then two columns. A circuit that fits neither gets the width that it needs.
    """
    cells = _cells(graph, places)
    bands = sorted({band for band, _ in cells})
    axis = MARGIN + max((measure(places.bands[b].site, SMALL) for b in bands), default=0.0) + 0.08
    tokens = [fold(column.token, SMALL, TOKEN_ROOM, 1)[0] for column in places.columns]
    if len(tokens) == 1:
        tokens = [places.columns[0].token]
    fitted = None
    for page in PAGES:
        for room, across in product(ROOMS, ACROSS):
            boxes = {node: _box(node, graph, room) for node in graph}
            widths = _column_widths(cells, boxes, tokens, across)
            spare = page - axis - MARGIN - sum(widths)
            if spare >= 0:
                break
        if spare < 0 and page != PAGES[-1]:
            continue
        widths = [width + max(spare, 0.0) / len(widths) for width in widths]
        fitted = _placed(cells, places, bands, boxes, widths, across, axis, tokens)
        if fitted.height <= TALLEST:
            break
    assert fitted is not None
    return fitted


def _cells(graph: nx.DiGraph, places: Layout) -> dict[tuple[int, int], list[Node]]:
    """Nodes by (band, column), in the layout's own reading order."""
    cells: dict[tuple[int, int], list[Node]] = {}
    for node in sorted(graph, key=lambda n: (places.places[n].y, places.places[n].x)):
        place = places.places[node]
        cells.setdefault((place.band, place.column), []).append(node)
    return cells


def _box(node: Node, graph: nx.DiGraph, room: float) -> Box:
    """A box at the origin, as large as its folded text asks for."""
    lines = fold(caption(node, graph.nodes[node]), TEXT, room, 2 if room > 0.8 else 3)
    point = POINT if node.kind == "error" else 0.0
    width = max(measure(line, TEXT) for line in lines) + 2 * (PAD + point)
    height = len(lines) * LEADING + 2 * PAD
    return Box(left=0.0, top=0.0, width=width, height=height, lines=tuple(lines))


def _column_widths(
    cells: Cells, boxes: Mapping[Node, Box], tokens: Sequence[str], across: int
) -> list[float]:
    widths = [measure(token, SMALL) + GAP for token in tokens]
    for (_, column), nodes in cells.items():
        widest = max(_line_width(line, boxes) for line in _lines(nodes, across))
        widths[column] = max(widths[column], widest + GAP)
    return widths


def _lines(nodes: Sequence[Node], across: int) -> list[Sequence[Node]]:
    return [nodes[start : start + across] for start in range(0, len(nodes), across)]


def _line_width(nodes: Sequence[Node], boxes: Mapping[Node, Box]) -> float:
    return sum(boxes[node].width for node in nodes) + GAP * (len(nodes) - 1)


def _cell_height(lines: Sequence[Sequence[Node]], boxes: Mapping[Node, Box]) -> float:
    return sum(max(boxes[n].height for n in line) for line in lines) + GAP * (len(lines) - 1)


def _placed(
    cells: Cells,
    places: Layout,
    bands: Sequence[int],
    boxes: Mapping[Node, Box],
    widths: Sequence[float],
    across: int,
    axis: float,
    tokens: Sequence[str],
) -> Sheet:
    centres = [axis + sum(widths[:i]) + width / 2 for i, width in enumerate(widths)]
    done: dict[Node, Box] = {}
    rows: list[Row] = []
    top = MARGIN
    for band in bands:
        inside = {c: _lines(nodes, across) for (b, c), nodes in cells.items() if b == band}
        height = max(_cell_height(lines, boxes) for lines in inside.values())
        for column, lines in inside.items():
            start = top + BAND_GAP / 2 + (height - _cell_height(lines, boxes)) / 2
            done |= _place_cell(lines, boxes, centres[column], start)
        rows.append(Row(band=places.bands[band], top=top, bottom=top + height + BAND_GAP))
        top += height + BAND_GAP
    return Sheet(
        width=axis + sum(widths) + MARGIN,
        height=top + FOOT + 0.16,
        axis=axis,
        boxes=done,
        rows=tuple(rows),
        tokens=tuple(zip(centres, tokens, strict=True)),
    )


def _place_cell(
    lines: Sequence[Sequence[Node]], boxes: Mapping[Node, Box], centre: float, top: float
) -> dict[Node, Box]:
    """Each line of a cell centred under the one above."""
    done: dict[Node, Box] = {}
    for line in lines:
        tallest = max(boxes[node].height for node in line)
        left = centre - _line_width(line, boxes) / 2
        for node in line:
            box = boxes[node]
            shift = top + (tallest - box.height) / 2
            done[node] = Box(
                left=left, top=shift, width=box.width, height=box.height, lines=box.lines
            )
            left += box.width + GAP
        top += tallest + GAP
    return done

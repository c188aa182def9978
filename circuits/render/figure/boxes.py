"""From the shared layout to a printed sheet: boxes as wide as their text, in lines and columns.

Units are inches, x to the right and y downwards from the sheet's top left corner. The order of
bands, columns and nodes is the layout's; only the distances are those of print. All boxes of a band
stand on *lines* that cross the whole sheet; between two lines runs a channel that no box touches.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

import networkx as nx

from circuits.graph import Node
from circuits.render.figure.columns import HEADS, SheetColumn, columns_of
from circuits.render.figure.ink import drawable, fold, measure
from circuits.render.figure.sheet import (
    FOOT,
    GAP,
    GUTTER,
    LEADING,
    MARGIN,
    PAD,
    POINT,
    TEXT,
    BandRow,
    Box,
    BoxText,
    ColumnHeading,
    Line,
    Sheet,
)
from circuits.render.figure.spacing import spaced
from circuits.render.layout import Band, Layout

CHANNELS = ((0.19, 0.13), (0.13, 0.1))  # heights of channels between bands, between lines of one
PAGES = (3.3, 6.75)  # one and two columns of a paper
TALLEST = 9.0  # in
ROOMS = ((1.15, 2), (0.9, 2), (0.9, 3), (0.7, 3), (0.55, 3), (0.42, 4), (0.34, 4))
"Widest text of a box, in, and how many lines of it."
LOWEST = (1.5, 1)
"What is left to try where the page is still too short."
WORTH = 0.93
"Less room for text must bring the height to this share of what it was."
ACROSS = 6  # boxes of a cell side by side, at most

Cells = Mapping[tuple[int, int], Sequence[Node]]


def sheet(
    circuit: nx.DiGraph,
    places: Layout,
    words: Mapping[Node, BoxText],
    *,
    pages: Sequence[float] = PAGES,
    tallest: float = TALLEST,
    foot: Callable[[float], float] = lambda _: FOOT,
) -> Sheet | None:
    """Boxes for every node of `circuit` on the first of `pages` that holds them, None if none does.

    A page that would be taller than half of `tallest` gives way to a wider one that is not as tall.
    `foot` is the height under the columns that a page of some width needs, in.
    """
    found = None
    for page in pages:
        drawn = _fitted(circuit, places, words, page, foot(page), tallest)
        if drawn is None or drawn.height > tallest:
            continue
        if found is None or drawn.height < found.height:
            found = drawn
        if found.height <= tallest / 2:
            break
    return found


def _worth(best: Sheet, tallest: float) -> float:
    """The height under which a sheet with less room for text takes the place of one with more."""
    return best.height * (WORTH if best.height <= tallest else 1.0)


def _fitted(
    circuit: nx.DiGraph,
    places: Layout,
    words: Mapping[Node, BoxText],
    page: float,
    foot: float,
    tallest: float,
) -> Sheet | None:
    """A low sheet on a page of this width; None where no room for text makes it fit."""
    cells = _cells(circuit, places)
    names = {band_name(places.bands[band]) for band, _ in cells}
    axis = MARGIN + max((measure(name, TEXT) for name in names), default=0.0) + 0.06
    bounds = (axis + GUTTER, page - MARGIN - GUTTER)
    best = None
    for heads, channels in product(HEADS, CHANNELS):
        columns = columns_of(places, {column for _, column in cells}, heads)
        for room in (*ROOMS, LOWEST):
            if room == LOWEST and best and best.height <= tallest - foot:
                break
            boxes = {node: _box(node, words[node], *room) for node in circuit}
            for drawn in _wrapped(cells, places, boxes, bounds, columns, channels):
                if best is None or drawn.height < _worth(best, tallest - foot):
                    best = drawn
        if best and best.height <= tallest - foot:
            break
    return best and replace(best, width=page, axis=axis, height=best.height + foot)


def _wrapped(
    cells: Cells,
    places: Layout,
    boxes: Mapping[Node, Box],
    bounds: tuple[float, float],
    columns: Sequence[SheetColumn],
    channels: tuple[float, float],
) -> Iterator[Sheet]:
    """Sheets with ever fewer boxes of a cell side by side, those that fit."""
    busiest = max(map(len, cells.values()), default=1)
    for across in range(min(busiest, ACROSS), 0, -1):
        centres = _centres(cells, boxes, columns, across, bounds)
        if centres is None:
            continue
        drawn = _placed(cells, places, boxes, centres, across, bounds, columns, channels)
        if drawn is not None:
            yield drawn


def band_name(band: Band) -> str:
    return {"logit": "output", "embed": "tokens"}.get(band.site, band.site)


def _cells(graph: nx.DiGraph, places: Layout) -> dict[tuple[int, int], list[Node]]:
    """Nodes by (band, column), in the layout's own reading order."""
    cells: dict[tuple[int, int], list[Node]] = {}
    for node in sorted(graph, key=lambda n: (places.places[n].y, places.places[n].x, str(n))):
        place = places.places[node]
        cells.setdefault((place.band, place.column), []).append(node)
    return cells


def _box(node: Node, words: BoxText, room: float, most: int) -> Box:
    """A box at the origin, as large as its folded text asks for."""
    lines = fold(words.label, TEXT, room, most) if words.label else []
    name, badge = drawable(words.name), drawable(words.badge)
    texts = [*lines, *filter(None, (name, badge))]
    point = POINT if node.kind == "error" else 0.0
    return Box(
        left=0.0,
        top=0.0,
        width=max(measure(line, TEXT) for line in texts) + 2 * (PAD + point),
        height=len(texts) * LEADING + 2 * PAD,
        lines=tuple(lines),
        name=name,
        badge=badge,
    )


def _centres(
    cells: Cells,
    boxes: Mapping[Node, Box],
    columns: Sequence[SheetColumn],
    across: int,
    bounds: tuple[float, float],
) -> dict[int, float] | None:
    """The centre of each column: as wide as its boxes, or less where a page asks for it.

    None where not even the tokens fit.
    """
    heads = {column.index: column.width for column in columns}
    wanted = {}
    for (_, column), nodes in cells.items():
        widest = max(_line_width(line, boxes) for line in _lines(nodes, across)) + GAP
        wanted[column] = max(widest - heads[column], wanted.get(column, 0.0))
    spare = bounds[1] - bounds[0] - sum(heads.values())
    if spare < 0:
        return None
    asked = sum(wanted.values())
    scale, more = min(1.0, spare / asked) if asked else 1.0, max(spare - asked, 0.0)
    centres, left = {}, bounds[0]
    for index, width in heads.items():
        if index in wanted:
            width += scale * wanted[index] + more / len(wanted)
        centres[index] = left + width / 2
        left += width
    return centres


def _lines(nodes: Sequence[Node], across: int) -> list[Sequence[Node]]:
    """As many side by side as there may be, spread evenly."""
    rows = math.ceil(len(nodes) / across)
    each = math.ceil(len(nodes) / rows)
    return [nodes[start : start + each] for start in range(0, len(nodes), each)]


def _line_width(nodes: Sequence[Node], boxes: Mapping[Node, Box]) -> float:
    return sum(boxes[node].width for node in nodes) + GAP * (len(nodes) - 1)


def _placed(
    cells: Cells,
    places: Layout,
    boxes: Mapping[Node, Box],
    centres: Mapping[int, float],
    across: int,
    bounds: tuple[float, float],
    columns: Sequence[SheetColumn],
    channels: tuple[float, float],
) -> Sheet | None:
    """Band over band; None where the boxes of some line do not fit."""
    done: dict[Node, Box] = {}
    rows: list[BandRow] = []
    lines: list[Line] = []
    top = MARGIN
    for band in sorted({band for band, _ in cells}):
        inside = {c: _lines(nodes, across) for (b, c), nodes in cells.items() if b == band}
        start, bottom = top, top + channels[0] / 2
        for level, members in enumerate(_levels(inside)):
            first = bottom + (channels[1] if level else 0.0)
            placed = _line(members, boxes, centres, first, bounds)
            if placed is None:
                return None
            bottom = first + max(box.height for box in placed.values())
            done |= placed
            lines.append(Line(top=first, bottom=bottom, nodes=tuple(placed)))
        top = bottom + channels[0] / 2
        rows.append(BandRow(band=places.bands[band], top=start, bottom=top))
    heads = tuple(
        ColumnHeading(x=centres[c.index], lines=c.lines, folded=c.folded) for c in columns
    )
    words = max(len(head.lines) for head in heads) * LEADING + 0.06
    return Sheet(
        width=bounds[1],
        height=top + words + MARGIN,
        axis=bounds[0],
        boxes=done,
        lines=tuple(lines),
        rows=tuple(rows),
        heads=heads,
    )


def _levels(inside: Mapping[int, Sequence[Sequence[Node]]]) -> list[dict[int, Sequence[Node]]]:
    """The lines of a band: of each the nodes by column; a cell with few stands in the middle."""
    count = max(map(len, inside.values()))
    levels: list[dict[int, Sequence[Node]]] = [{} for _ in range(count)]
    for column, lines in inside.items():
        for index, nodes in enumerate(lines, start=(count - len(lines)) // 2):
            levels[index][column] = nodes
    return levels


def _line(
    members: Mapping[int, Sequence[Node]],
    boxes: Mapping[Node, Box],
    centres: Mapping[int, float],
    top: float,
    bounds: tuple[float, float],
) -> dict[Node, Box] | None:
    """The boxes of one line, each cell's over its column; None where they do not all stand there.

    A cell wider than its column reaches over its neighbours, and is pushed aside by theirs, as long
    as its column's centre is under it.
    """
    order = sorted(members)
    widths = [_line_width(members[column], boxes) for column in order]
    wanted = [centres[c] - width / 2 for c, width in zip(order, widths, strict=True)]
    if sum(widths) + GAP * (len(widths) - 1) > bounds[1] - bounds[0]:
        return None
    lefts = spaced(wanted, [w + GAP for w in widths[:-1]], bounds[0], bounds[1] - widths[-1])
    tallest = max(boxes[node].height for nodes in members.values() for node in nodes)
    done: dict[Node, Box] = {}
    for column, width, left in zip(order, widths, lefts, strict=True):
        if not left <= centres[column] <= left + width:
            return None
        for node in members[column]:
            box = boxes[node]
            done[node] = replace(box, left=left, top=top + (tallest - box.height) / 2)
            left += box.width + GAP
    return done

"""Edges that run behind no box: up through the gaps of every line of boxes that they pass.

An edge leaves the top of its source and enters its target from below. It passes a line of boxes
straight up, through a gap, and crosses from gap to gap in the channels between lines, which no box
touches; so it meets no box but its own two. Units are inches, y downwards.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import networkx as nx

from circuits.graph import Edge, Node
from circuits.render.figure.sheet import MARGIN, Sheet
from circuits.render.figure.spacing import spaced

CLEARANCE = 0.016  # between an edge and a box that it passes
LANE = 0.03  # between two edges in a gap, where there is room
PORTS = 0.76  # share of a box's width over which its edges are spread
BULGE = 0.055  # of an edge that turns, less than half of the lowest channel
CROWD = 0.12  # in of detour that a full gap is worth

Point = tuple[float, float]
Span = tuple[float, float]


@dataclass
class _Route:
    """An edge under way: the lines that it passes, and where."""

    edge: Edge
    upwards: bool
    passed: list[int]  # lines, in the order of the way
    gaps: list[Span] = field(default_factory=list)
    xs: list[float] = field(default_factory=list)
    start: float = 0.0  # x of its ports
    end: float = 0.0


@dataclass(frozen=True)
class BezierCurve:
    """A smooth curve: a start, and cubic pieces of two control points and an end each."""

    start: Point
    pieces: tuple[tuple[Point, Point, Point], ...]

    @property
    def end(self) -> Point:
        return self.pieces[-1][-1]


def routes(circuit: nx.DiGraph, drawing: Sheet) -> dict[Edge, BezierCurve]:
    """The curve of each edge of `circuit`, the strongest edges the straightest."""
    line_of = {node: i for i, line in enumerate(drawing.lines) for node in line.nodes}
    free = [_gaps(drawing, i) for i in range(len(drawing.lines))]
    edges = sorted(circuit.edges(data="weight"), key=lambda e: (-abs(e[2]), str(e[0]), str(e[1])))
    traffic: dict[tuple[int, Span], int] = {}
    found: list[_Route] = []
    for source, target, _ in edges:
        low, high = line_of[source], line_of[target]
        upwards = high < low
        # Lines are counted from the top; one that runs down passes its own two lines as well.
        passed = list(range(low - 1, high, -1)) if upwards else list(range(low, high + 1))
        route = _Route((source, target), upwards, passed)
        route.start, route.end = drawing.boxes[source].x, drawing.boxes[target].x
        _choose_gaps(route, free, traffic)
        found.append(route)
    _spread(found)
    _place_ports(found, drawing)
    return {route.edge: _curve(route, drawing) for route in found}


def _gaps(drawing: Sheet, line: int) -> list[Span]:
    """Where an edge may pass a line of boxes, from left to right."""
    boxes = sorted(
        (drawing.boxes[n].left, drawing.boxes[n].right) for n in drawing.lines[line].nodes
    )
    left, right = drawing.axis + CLEARANCE, drawing.width - MARGIN - CLEARANCE
    ends = [left, *(x for a, b in boxes for x in (a - CLEARANCE, b + CLEARANCE)), right]
    return [(a, b) for a, b in zip(ends[::2], ends[1::2], strict=True) if b >= a]


def _choose_gaps(
    route: _Route,
    free: Sequence[Sequence[Span]],
    traffic: dict[tuple[int, Span], int],
) -> None:
    """The gaps with the least way aside, by dynamic programming from line to line."""
    # For each gap of the line at hand: cost so far, x in it, gaps on the way.
    best: list[tuple[float, float, list[Span], list[float]]] = [(0.0, route.start, [], [])]
    count = len(route.passed)
    for step, line in enumerate(route.passed):
        straight = route.start + (route.end - route.start) * (step + 1) / (count + 1)
        found = []
        for gap in free[line]:
            lanes = 1 + (gap[1] - gap[0]) / LANE
            crowd = CROWD * traffic.get((line, gap), 0) / lanes
            options = []
            for cost, x, gaps, xs in best:
                # Straight up from the last where that fits, else as near to the target as it can.
                for wanted in {x, straight, route.end}:
                    at = min(max(wanted, gap[0]), gap[1])
                    aside = abs(at - x) + 0.3 * abs(at - straight)
                    options.append((cost + aside + crowd, at, [*gaps, gap], [*xs, at]))
            found.append(min(options, key=lambda o: (o[0], o[1])))
        best = found
    _, _, route.gaps, route.xs = min(best, key=lambda b: (b[0] + abs(b[1] - route.end), b[1]))
    for line, gap in zip(route.passed, route.gaps, strict=True):
        traffic[line, gap] = traffic.get((line, gap), 0) + 1


def _spread(found: Iterable[_Route]) -> None:
    """Edges in one gap get lanes of their own, in the order in which they cross least."""
    users: dict[tuple[int, Span], list[tuple[_Route, int]]] = {}
    for route in found:
        for step, (line, gap) in enumerate(zip(route.passed, route.gaps, strict=True)):
            users.setdefault((line, gap), []).append((route, step))
    for (_, gap), inside in sorted(users.items()):
        inside.sort(key=lambda use: (_pull(*use), str(use[0].edge)))
        wanted = [route.xs[step] for route, step in inside]
        for (route, step), x in zip(inside, lanes(wanted, gap), strict=True):
            route.xs[step] = x


def _pull(route: _Route, step: int) -> float:
    """Where an edge comes from and goes to, seen from one of its steps."""
    way = [route.start, *route.xs, route.end]
    return way[step] + way[step + 2] + 0.5 * way[step + 1]


def lanes(wanted: Sequence[float], room: Span, lane: float = LANE) -> list[float]:
    """Places in `room` in this order, `lane` apart or as far as it goes, near those `wanted`."""
    apart = min(lane, (room[1] - room[0]) / max(len(wanted) - 1, 1))
    return spaced(wanted, [apart] * (len(wanted) - 1), *room)


def _place_ports(found: Sequence[_Route], drawing: Sheet) -> None:
    """Where edges meet their boxes: over the middle of it, in the order of where they go."""
    for node, box in drawing.boxes.items():
        half = PORTS * box.width / 2
        room = (box.x - half, box.x + half)
        leaving = [route for route in found if route.edge[0] == node]
        leaving.sort(key=lambda r: ((*r.xs, r.end)[0], str(r.edge[1])))
        entering = [route for route in found if route.edge[1] == node]
        entering.sort(key=lambda r: ((r.start, *r.xs)[-1], str(r.edge[0])))
        for route, x in zip(leaving, _ports(len(leaving), room), strict=True):
            route.start = x
        for route, x in zip(entering, _ports(len(entering), room), strict=True):
            route.end = x


def _ports(count: int, room: Span) -> list[float]:
    return [room[0] + (room[1] - room[0]) * (i + 1) / (count + 1) for i in range(count)]


def _curve(route: _Route, drawing: Sheet) -> BezierCurve:
    source, target = (drawing.boxes[node] for node in route.edge)
    passes = [_pass(drawing, line, route.upwards) for line in route.passed]
    ways = [(route.start, source.top, _line_top(drawing, route.edge[0]))]
    ways += [(x, enters, leaves) for x, (enters, leaves) in zip(route.xs, passes, strict=True)]
    ways += [(route.end, _line_bottom(drawing, route.edge[1]), target.bottom)]
    pieces: list[tuple[Point, Point, Point]] = []
    for index, ((x, enters, leaves), (next_x, next_enters, _)) in enumerate(pairwise(ways)):
        if enters != leaves:
            pieces.append(_straight((x, enters), (x, leaves)))
        turn = not route.upwards and index in (0, len(ways) - 2)
        pieces.append(_across((x, leaves), (next_x, next_enters), turn=turn, first=index == 0))
    x, enters, leaves = ways[-1]
    if enters != leaves:
        pieces.append(_straight((x, enters), (x, leaves)))
    return BezierCurve((route.start, source.top), tuple(pieces))


def _pass(drawing: Sheet, line: int, upwards: bool) -> tuple[float, float]:
    found = drawing.lines[line]
    return (found.bottom, found.top) if upwards else (found.top, found.bottom)


def _line_top(drawing: Sheet, node: Node) -> float:
    return next(line.top for line in drawing.lines if node in line.nodes)


def _line_bottom(drawing: Sheet, node: Node) -> float:
    return next(line.bottom for line in drawing.lines if node in line.nodes)


def _straight(a: Point, b: Point) -> tuple[Point, Point, Point]:
    step = (b[1] - a[1]) / 3
    return (a[0], a[1] + step), (b[0], b[1] - step), b


def _across(a: Point, b: Point, *, turn: bool, first: bool) -> tuple[Point, Point, Point]:
    """From gap to gap inside a channel; a turn bulges into it and comes back the same way."""
    if turn:
        bulge = BULGE * (-1 if first else 1)
        return (a[0], a[1] + bulge), (b[0], b[1] + bulge), b
    half = (b[1] - a[1]) / 2
    return (a[0], a[1] + half), (b[0], b[1] - half), b


def middle(curve: BezierCurve, drawing: Sheet) -> Point:
    """A point of a curve where nothing but edges is: in the channel nearest to its middle."""
    points, start = [], curve.start
    for b, c, d in curve.pieces:
        points.append(((start[0] + 3 * b[0] + 3 * c[0] + d[0]) / 8, (start[1] + d[1]) / 2))
        start = d
    free = [
        (x, y) for x, y in points if not any(line.top < y < line.bottom for line in drawing.lines)
    ]
    return free[len(free) // 2]


def samples(curve: BezierCurve, per_piece: int = 24) -> list[Point]:
    """Points along a curve, its ends among them."""
    found, a = [curve.start], curve.start
    for b, c, d in curve.pieces:
        for i in range(1, per_piece + 1):
            t = i / per_piece
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            found.append(tuple(  # pyright: ignore[reportArgumentType]
                sum(w * p[axis] for w, p in zip(weights, (a, b, c, d), strict=True))
                for axis in (0, 1)
            ))  # fmt: skip
        a = d
    return found

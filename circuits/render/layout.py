"""Where every node of a picture stands: computed once, shared by the page and the figure.

A *band* is a horizontal row of nodes of one site, in the order the model computes them: tokens
at the bottom, then attention, MLP and residual stream of each layer, outputs on top. A *column*
is a token position; when positions are summed there is a single column. A *cell* is where band
and column cross; nodes that share one stand side by side, strongest first.

Units are CSS pixels at zoom 1; x grows to the right and y downwards, as on a screen.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import networkx as nx

from circuits.graph import Node, ordered
from circuits.render.words import cells, readable
from hooked_qwen.sites import KINDS

BAND_PADDING, COLUMN_PADDING = 6.0, 12.0
EMPTY_COLUMN, TOKEN_COLUMN, CELL_WIDTH = 30.0, 116.0, 7.2
ASPECT = 1.25  # width over height of the canvas on a laptop, beside the panel
MOST_STRETCH = 1.8
SUBLAYERS = KINDS[1:]
SUMMED = "all positions, summed"


class Slot(NamedTuple):
    """Room for one node, px: never less than the largest node takes."""

    width: float
    height: float

    @classmethod
    def of(cls, n_nodes: int, n_bands: int) -> "Slot":
        """Wide enough for a label beside the node in a small graph, tight in a crowded one."""
        crowd, deep = max(n_nodes / 150, 1.0), max(n_bands / 24, 1.0)
        return cls(max(110 / crowd**0.5, 40.0), max(48 / (crowd**0.25 * deep**0.5), 30.0))

    def stretched(self, excess: float) -> "Slot":
        """The slot with the room that is left over, `excess` times too wide or (< 1) too tall."""
        tall = min(max(excess, 1.0), MOST_STRETCH)
        wide = min(max(1 / excess, 1.0), MOST_STRETCH)
        return Slot(self.width * wide, self.height * tall)


@dataclass(frozen=True, kw_only=True)
class Band:
    """One row of the picture: a site that has nodes."""

    site: str
    layer: int | None  # None for the tokens and the outputs
    y: float  # centre, px
    height: float  # px
    shaded: bool  # every other layer of those that have nodes


@dataclass(frozen=True, kw_only=True)
class Column:
    """One token position, or all of them merged."""

    position: int | None  # None when merged
    token: str  # text under the column
    x: float  # centre, px
    width: float  # px


@dataclass(frozen=True, kw_only=True)
class NodePlace:
    """Where one node stands, and in which band and column (indices into the layout's)."""

    x: float  # centre, px
    y: float  # centre, px
    band: int
    column: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Places of all nodes; bands from top to bottom, columns from left to right."""

    places: Mapping[Node, NodePlace]
    bands: tuple[Band, ...]
    columns: tuple[Column, ...]
    width: float  # px
    height: float  # px


def layout(graph: nx.DiGraph, *, aspect: float = ASPECT) -> Layout:
    """Places for every node of `graph`; the same graph always gives the same places.

    Cells are wrapped so that width over height comes as near to `aspect` as it can.
    """
    sites = sorted({node.site for node in graph}, key=depth, reverse=True)
    positions, tokens = _columns(graph)
    members = _cells_of(graph, sites, positions)
    slot = Slot.of(len(graph), len(sites))
    across = _best_wrap(members, len(sites), tokens, slot, aspect)
    slot = slot.stretched(_shape(members, len(sites), tokens, slot, across) / aspect)
    columns = _place_columns(positions, tokens, _widths(members, tokens, slot, across))
    bands = _place_bands(sites, _rows(members, len(sites), across), slot)
    places = {
        node: _place(index, len(nodes), across, cell, slot, bands, columns)
        for cell, nodes in members.items()
        for index, node in enumerate(nodes)
    }
    width = columns[-1].x + columns[-1].width / 2 if columns else 0.0
    height = bands[-1].y + bands[-1].height / 2 if bands else 0.0
    return Layout(places=places, bands=bands, columns=columns, width=width, height=height)


def depth(site: str) -> tuple[float, int, str]:
    """Sort key of a site in the order of computation: `embed` first, `logit` last."""
    kind, _, layer = site.partition(".")
    if kind == "embed":
        return (-1.0, 0, site)
    if not layer.isdigit():
        return (math.inf, 0 if kind != "logit" else 1, site)
    rank = SUBLAYERS.index(kind) if kind in SUBLAYERS else len(SUBLAYERS)
    return (float(layer), rank, site)


def _columns(graph: nx.DiGraph) -> tuple[list[int | None], list[str]]:
    """Positions of the columns and the text under each; `[None]` when positions are summed."""
    named = [str(token) for token in graph.graph.get("columns") or []]
    found = [node.position for node in graph if node.position is not None]
    if not found:
        return [None], [SUMMED]
    count = max(len(named), max(found) + 1)
    tokens = [readable(t) for t in named] + [str(p) for p in range(len(named), count)]
    positions: list[int | None] = list(range(count))
    if any(node.position is None and node.site != "logit" for node in graph):
        return [*positions, None], [*tokens, SUMMED]
    return positions, tokens


def _cells_of(
    graph: nx.DiGraph, sites: list[str], positions: list[int | None]
) -> dict[tuple[int, int], list[Node]]:
    """Nodes by (band, column), strongest first; outputs stand over the last position."""
    band = {site: index for index, site in enumerate(sites)}
    last = max((i for i, p in enumerate(positions) if p is not None), default=0)
    members: dict[tuple[int, int], list[Node]] = {}
    for node in ordered(graph):
        merged = last if node.site == "logit" else len(positions) - 1
        column = merged if node.position is None else node.position
        members.setdefault((band[node.site], column), []).append(node)
    return members


def _best_wrap(
    members: Mapping[tuple[int, int], list[Node]],
    bands: int,
    tokens: list[str],
    slot: Slot,
    aspect: float,
) -> int:
    """How many nodes stand side by side before a cell starts another row."""

    def misfit(across: int) -> float:
        return abs(math.log(_shape(members, bands, tokens, slot, across) / aspect))

    busiest = max(map(len, members.values()), default=1)
    return min(range(1, busiest + 1), key=misfit) if members else 1


def _shape(
    members: Mapping[tuple[int, int], list[Node]],
    bands: int,
    tokens: list[str],
    slot: Slot,
    across: int,
) -> float:
    """Width over height of the whole picture; 1 for an empty one."""
    width = sum(_widths(members, tokens, slot, across))
    height = sum(_rows(members, bands, across)) * slot.height + bands * BAND_PADDING
    return width / height if height else 1.0


def _widths(
    members: Mapping[tuple[int, int], list[Node]], tokens: list[str], slot: Slot, across: int
) -> list[float]:
    """Width of each column: its busiest cell's, and enough for its token when it is empty."""
    busiest = [0] * len(tokens)
    for (_, column), nodes in members.items():
        busiest[column] = max(busiest[column], min(len(nodes), across))
    text = [min(max(cells(t) * CELL_WIDTH, EMPTY_COLUMN), TOKEN_COLUMN) for t in tokens]
    return [
        max(count * slot.width, room) + COLUMN_PADDING
        for count, room in zip(busiest, text, strict=True)
    ]


def _rows(members: Mapping[tuple[int, int], list[Node]], bands: int, across: int) -> list[int]:
    """How many rows of nodes each band needs."""
    rows = [1] * bands
    for (band, _), nodes in members.items():
        rows[band] = max(rows[band], math.ceil(len(nodes) / across))
    return rows


def _place_columns(
    positions: Iterable[int | None], tokens: Iterable[str], widths: Iterable[float]
) -> tuple[Column, ...]:
    placed, left = [], 0.0
    for position, token, width in zip(positions, tokens, widths, strict=True):
        placed.append(Column(position=position, token=token, x=left + width / 2, width=width))
        left += width
    return tuple(placed)


def _place_bands(sites: Iterable[str], rows: Iterable[int], slot: Slot) -> tuple[Band, ...]:
    placed, top = [], 0.0
    layers: list[int] = []
    for site, count in zip(sites, rows, strict=True):
        layer = site.partition(".")[2]
        height = count * slot.height + BAND_PADDING
        number = int(layer) if layer.isdigit() else None
        if number is not None and number not in layers:
            layers.append(number)
        shaded = number is not None and layers.index(number) % 2 == 0
        placed.append(
            Band(site=site, layer=number, y=top + height / 2, height=height, shaded=shaded)
        )
        top += height
    return tuple(placed)


def _place(
    index: int,
    count: int,
    across: int,
    cell: tuple[int, int],
    slot: Slot,
    bands: tuple[Band, ...],
    columns: tuple[Column, ...],
) -> NodePlace:
    """The slot of the `index`-th of `count` nodes of a cell, rows centred in the cell."""
    row, step = divmod(index, across)
    rows = math.ceil(count / across)
    in_row = min(across, count - row * across)
    x = columns[cell[1]].x + (step - (in_row - 1) / 2) * slot.width
    y = bands[cell[0]].y + (row - (rows - 1) / 2) * slot.height
    return NodePlace(x=x, y=y, band=cell[0], column=cell[1])

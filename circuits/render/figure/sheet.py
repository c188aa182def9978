"""A figure before it is drawn: boxes in lines, bands of sites and the tokens under the columns.

Units are inches, x to the right and y downwards from the sheet's top left corner.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from circuits.graph import Node
from circuits.render.layout import Band

TEXT = 6.5  # points, of all text
LEADING = 0.105  # line height, in
PAD, GAP, GUTTER = 0.038, 0.085, 0.07
MARGIN, FOOT = 0.04, 0.14
POINT = 0.05  # how far the sides of an error's box stick out
HEAD = 0.032  # in, of an arrowhead, and half of a bar


@dataclass(frozen=True, kw_only=True)
class BoxText:
    """What a box says; one of the first two at least."""

    label: str
    name: str = ""
    "what a paper cites, such as `4/15`"
    badge: str = ""
    "what an intervention did"


@dataclass(frozen=True, kw_only=True)
class Box:
    """A node's box: its label's lines, under them its name, and what was done to the node."""

    left: float  # in
    top: float  # in
    width: float  # in
    height: float  # in
    lines: tuple[str, ...]
    name: str = ""
    badge: str = ""

    @property
    def x(self) -> float:
        return self.left + self.width / 2

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def texts(self) -> tuple[str, ...]:
        return (*self.lines, *filter(None, (self.name, self.badge)))


@dataclass(frozen=True, kw_only=True)
class BandRow:
    """A band on the sheet."""

    band: Band
    top: float  # in
    bottom: float  # in


@dataclass(frozen=True, kw_only=True)
class Line:
    """A row of boxes: no box of another line reaches between its top and its bottom."""

    top: float  # in
    bottom: float  # in
    nodes: tuple[Node, ...]


@dataclass(frozen=True, kw_only=True)
class ColumnHeading:
    """What stands under a column: its token, or how many without nodes are folded there."""

    x: float  # centre, in
    lines: tuple[str, ...]
    folded: bool = False


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A figure before it is drawn: its size, its boxes, its axes."""

    width: float  # in
    height: float  # in
    axis: float  # in, where the columns begin
    boxes: Mapping[Node, Box]
    lines: tuple[Line, ...]
    rows: tuple[BandRow, ...]
    heads: tuple[ColumnHeading, ...]

"""What a figure is made of, in drawing order, before anything draws it.

Units are inches from the sheet's top left corner, y downwards; line widths are points; all text
has one size. `figure` draws marks with matplotlib, `tikz` writes them as TikZ.
"""

from dataclasses import dataclass

from circuits.render.figure.routes import BezierCurve, Point


@dataclass(frozen=True, kw_only=True)
class Stroke:
    colour: str
    width: float  # points
    dashed: bool = False


@dataclass(frozen=True, kw_only=True)
class Rect:
    corner: Point  # top left
    width: float
    height: float
    fill: str
    stroke: Stroke | None = None
    rounded: float = 0.0  # radius of the corners


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A filled polygon."""

    corners: tuple[Point, ...]
    fill: str
    stroke: Stroke | None = None


@dataclass(frozen=True, kw_only=True)
class Trace:
    """A line along a curve."""

    curve: BezierCurve
    stroke: Stroke


@dataclass(frozen=True, kw_only=True)
class TextMark:
    at: Point  # the middle of its height
    text: str
    colour: str = "#000000"
    anchor: str = "center"  # or left, right


Mark = Rect | Shape | Trace | TextMark

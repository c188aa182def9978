"""A matrix of numbers as a figure: task x circuit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D

from circuits.render.figure import ink
from circuits.render.words import OPPOSES, SUPPORTS

CELL, ROW = 0.62, 0.3  # in
MARGIN, GAP = 0.08, 0.07  # in
WORD, SMALL = 6.5, 6.5  # points
LONGEST = 1.6  # in, of a name
DEEPEST = 0.85
"Share of the colour where all of a task is lost."
NOTE = "share of the task's effect that is lost with the circuit cut; framed: its own circuit"
Corner = tuple[float, float]
"Left and top of a cell, in."


def heat_map(record: Mapping[str, Any], path: Path) -> None:
    """Write the matrix of a record of `specificity` as `.svg` or `.pdf`.

    Rows are circuits, columns tasks; a cell's colour and number are what is lost, in blue, or
    gained, in orange. The same record gives the same bytes. Raises `ValueError` for another
    suffix.
    """
    ink.checked_suffix(path)
    with ink.fixed_style():
        names = [ink.fold(name, WORD, LONGEST, 1)[0] for name in record["rows"]]
        heads = [ink.fold(name, WORD, LONGEST, 1)[0] for name in record["tasks"]]
        left = MARGIN + max(ink.measure(name, WORD) for name in names) + GAP
        top = MARGIN + max(ink.measure(head, WORD) for head in heads) + GAP
        across = left + CELL * len(heads) + MARGIN
        lines = ink.fold(NOTE, SMALL, across - 2 * MARGIN, 3)
        height = top + ROW * len(names) + GAP + 0.12 * len(lines) + MARGIN
        picture = ink.blank(across, height)
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, across)
        axes.set_ylim(height, 0)
        axes.axis("off")
        write_text(
            axes, left - GAP, top - GAP, "circuit cut", ha="right", size=SMALL, color=ink.SOFT
        )
        for i, name in enumerate(names):
            write_text(axes, left - GAP, top + (i + 0.5) * ROW, name, ha="right")
        _matrix(axes, record, heads, (left, top))
        for k, line in enumerate(lines):
            y = top + ROW * len(names) + GAP + 0.12 * (k + 0.5)
            write_text(axes, MARGIN, y, line, ha="left", size=SMALL, color=ink.SOFT)
        ink.save(picture, path)


def _matrix(axes: Axes, record: Mapping[str, Any], heads: Sequence[str], corner: Corner) -> None:
    """Names of tasks, numbers on their colours, each circuit's own task framed."""
    left, top = corner
    for j, head in enumerate(heads):
        write_text(axes, left + (j + 0.5) * CELL, top - GAP, head, rotation=90.0, va="bottom")
    filled: dict[str, list[Corner]] = {}
    framed: list[Corner] = []
    for i, (own, row) in enumerate(zip(record["rows"], record["lost"], strict=True)):
        for j, (task, found) in enumerate(zip(record["tasks"], row, strict=True)):
            if found["value"] is None:
                continue
            x, y = left + j * CELL, top + i * ROW
            value, fill = shaded(found["value"])
            filled.setdefault(fill, []).append((x, y))
            if own == task:
                framed.append((x, y))
            text = f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
            write_text(axes, x + CELL / 2, y + ROW / 2, text, color=text_colour(fill))
    fill_cells(axes, filled, (CELL, ROW), apart=0.8)
    frame_cells(axes, framed, (CELL, ROW), inset=0.015, line=0.9)


def shaded(value: float) -> tuple[float, str]:
    """A number as it is written, with two digits, and the fill of its cell."""
    value = round(value, 2) + 0.0
    colour = ink.COLOURS[SUPPORTS if value >= 0 else OPPOSES]
    return value, ink.tint(colour, DEEPEST * min(1.0, abs(value)))


def fill_cells(
    axes: Axes, filled: Mapping[str, Sequence[Corner]], size: tuple[float, float], *, apart: float
) -> None:
    """Cells so many points apart; those of one colour are one shape, for a small file."""
    for fill, corners in filled.items():
        shape = _cells(corners, size, apart / 2 / ink.POINTS)
        axes.add_patch(PathPatch(shape, facecolor=fill, lw=0, clip_on=False))


def frame_cells(
    axes: Axes, corners: Sequence[Corner], size: tuple[float, float], *, inset: float, line: float
) -> None:
    """Black frames, `inset` inches inside of cells."""
    if corners:
        frames = _cells(corners, size, inset)
        axes.add_patch(PathPatch(frames, fill=False, edgecolor="black", lw=line, zorder=3))


def _cells(corners: Sequence[Corner], size: tuple[float, float], inset: float) -> Outline:
    scale = Affine2D().scale(*(side - 2 * inset for side in size))
    one = Outline.unit_rectangle().transformed(scale)
    places = (Affine2D().translate(x + inset, y + inset) for x, y in corners)
    return Outline.make_compound_path(*map(one.transformed, places))


def text_colour(fill: str) -> str:
    """What can be read on a fill."""
    return "white" if sum(to_rgb(fill)) < 1.7 else "black"


def write_text(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    ha: str = "center",
    va: str = "center",
    size: float = WORD,
    color: str = "black",
    rotation: float = 0.0,
    weight: str = "normal",
) -> None:
    """Text over a heat map's cells, in figures' size of words."""
    axes.text(
        x, y, text, ha=ha, va=va, size=size, color=color, rotation=rotation, weight=weight, zorder=4
    )

"""The matrix task x circuit as a figure: how much of each task is lost with each circuit cut."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from circuits.render import ink
from circuits.render.words import OPPOSES, SUPPORTS

CELL, ROW = 0.62, 0.3  # in
MARGIN, GAP = 0.08, 0.07  # in
WORD, SMALL = 6.5, 6.5  # points
LONGEST = 1.6  # in, of a name
DEEPEST = 0.85
"Share of the colour where all of a task is lost."
NOTE = "share of the task's effect that is lost with the circuit cut; framed: its own circuit"


def heat_map(record: Mapping[str, Any], path: Path) -> None:
    """Write the matrix of a record of `specificity` as `.svg` or `.pdf`.

    Rows are circuits, columns tasks; a cell's colour and number are what is lost, in blue, or
    gained, in orange. The same record gives the same bytes. Raises `ValueError` for another
    suffix.
    """
    ink.checked_suffix(path)
    rows, columns = record["rows"], list(record["tasks"])
    with ink.fixed_style():
        names = [ink.fold(name, WORD, LONGEST, 1)[0] for name in rows]
        heads = [ink.fold(name, WORD, LONGEST, 1)[0] for name in columns]
        left = MARGIN + max(ink.measure(name, WORD) for name in names) + GAP
        top = MARGIN + max(ink.measure(head, WORD) for head in heads) + GAP
        across = left + CELL * len(columns) + MARGIN
        note = ink.fold(NOTE, SMALL, across - 2 * MARGIN, 3)
        height = top + ROW * len(rows) + GAP + 0.12 * len(note) + MARGIN
        picture = ink.blank(across, height)
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, across)
        axes.set_ylim(height, 0)
        axes.axis("off")
        _text(axes, left - GAP, top - GAP, "circuit cut", ha="right", size=SMALL, color=ink.SOFT)
        for i, name in enumerate(names):
            _text(axes, left - GAP, top + (i + 0.5) * ROW, name, ha="right")
        for j, head in enumerate(heads):
            x = left + (j + 0.5) * CELL
            _text(axes, x, top - GAP, head, rotation=90.0, va="bottom")
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                corner = (left + j * CELL, top + i * ROW)
                _cell(axes, corner, record["lost"][i][j]["value"], own=row == column)
        for k, line in enumerate(note):
            y = top + ROW * len(rows) + GAP + 0.12 * (k + 0.5)
            _text(axes, MARGIN, y, line, ha="left", size=SMALL, color=ink.SOFT)
        ink.save(picture, path)


def _cell(axes: Axes, corner: tuple[float, float], value: float, *, own: bool) -> None:
    colour = ink.COLOURS[SUPPORTS if value >= 0 else OPPOSES]
    fill = ink.tint(colour, DEEPEST * min(1.0, abs(value)))
    axes.add_patch(Rectangle(corner, CELL, ROW, facecolor=fill, edgecolor="white", lw=0.8))
    if own:
        inset = 0.015
        frame = Rectangle(
            (corner[0] + inset, corner[1] + inset), CELL - 2 * inset, ROW - 2 * inset,
            fill=False, edgecolor="black", lw=0.9, zorder=3,
        )  # fmt: skip
        axes.add_patch(frame)
    dark = sum(to_rgb(fill)) < 1.7
    text = f"{round(value, 2) + 0.0:.2f}".replace("-", "\N{MINUS SIGN}")
    _text(axes, corner[0] + CELL / 2, corner[1] + ROW / 2, text, color="white" if dark else "black")


def _text(
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
) -> None:
    axes.text(x, y, text, ha=ha, va=va, size=size, color=color, rotation=rotation, zorder=4)

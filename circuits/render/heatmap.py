"""Matrices of numbers as figures: task x circuit, and directions x strengths of a sweep."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import PathPatch
from matplotlib.path import Path as Outline
from matplotlib.transforms import Affine2D

from circuits.render import ink
from circuits.render.words import OPPOSES, SUPPORTS, counted, readable

CELL, ROW = 0.62, 0.3  # in
NARROW = 0.46  # in, of a cell in one of several matrices
APART = 0.22  # in, between matrices
MARGIN, GAP = 0.08, 0.07  # in
WORD, SMALL = 6.5, 6.5  # points
LONGEST = 1.6  # in, of a name
LONGEST_DIRECTION = 2.6
DEEPEST = 0.85
"Share of the colour where all of a task is lost."
NOTE = "share of the task's effect that is lost with the circuit cut; framed: its own circuit"
LEAST = 0.005
"What is framed is written as more than 0.00."
Corner = tuple[float, float]
"Left and top of a cell, in."
UNSTEERED = "none"
"Heads the column of what is written without steering."


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Numbers in rows and columns; None where there is none."""

    title: str
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    framed: frozenset[tuple[int, int]] = frozenset()


def heat_map(record: Mapping[str, Any], path: Path) -> None:
    """Write the matrix of a record of `specificity` as `.svg` or `.pdf`.

    Rows are circuits, columns tasks; a cell's colour and number are what is lost, in blue, or
    gained, in orange. The same record gives the same bytes. Raises `ValueError` for another
    suffix.
    """
    ink.checked_suffix(path)
    rows, columns = record["rows"], list(record["tasks"])
    own = ((i, columns.index(row)) for i, row in enumerate(rows) if row in columns)
    matrix = Matrix(
        title="",
        columns=columns,
        values=[[cell["value"] for cell in row] for row in record["lost"]],
        framed=frozenset(own),
    )
    _draw([matrix], rows, path, corner="circuit cut", note=NOTE, cell=CELL, longest=LONGEST)


def steering_map(record: Mapping[str, Any], path: Path) -> None:
    """Write a `steering/1` record as three matrices: concept, fluency and both in one number.

    Rows are directions, columns strengths; framed is each row's best. The same record gives the
    same bytes. Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    rows = steering_rows(record)
    strengths = sorted({arm["strength"] for arm in record["arms"]})
    matrices = [
        Matrix(
            title=title,
            columns=[UNSTEERED, *(f"{s:g}".replace("-", "\N{MINUS SIGN}") for s in strengths)],
            values=(values := [[_at(cells, s, key) for s in (None, *strengths)]
                               for _, cells in rows]),
            framed=frozenset(_best(values)) if key == "score" else frozenset(),
        )
        for key, title in (("concept", "concept"), ("fluency", "fluency"), ("score", "both"))
    ]  # fmt: skip
    _draw(
        matrices,
        [name for name, _ in rows],
        path,
        corner="",
        note=steering_note(record),
        cell=NARROW,
        longest=LONGEST_DIRECTION,
    )


Cells = Mapping[float | None, Mapping[str, Any]]
"Of one direction, by strength; None is no steering."


def steering_rows(record: Mapping[str, Any]) -> list[tuple[str, Cells]]:
    """What is written as the model is and when told to, then each direction, features first."""
    rows: list[tuple[str, Cells]] = [("no steering", {None: record["plain"]})]
    if record["instructed"]:
        rows.append(("instruction in the prompt", {None: record["instructed"]}))
    by: dict[tuple[str, str], dict[float | None, Mapping[str, Any]]] = {}
    for arm in record["arms"]:
        by.setdefault((arm["method"], _called(arm)), {})[arm["strength"]] = arm
    order = ("feature", "difference of means", "encoder direction", "random feature")
    for (method, name), cells in sorted(by.items(), key=lambda item: order.index(item[0][0])):
        rows.append((f"{method} {name}", cells))
    return rows


def _called(arm: Mapping[str, Any]) -> str:
    label = readable(arm["label"]) if arm["label"] and arm["method"] == "feature" else ""
    return f"{arm['direction']} {label}".strip()


UNITS = {
    "max": "the feature's own largest activation",
    "token": "the largest activation of any feature at a neutral token",
    "activation": "activation",
}


def steering_note(record: Mapping[str, Any]) -> str:
    """What the numbers are, in one line."""
    unit = UNITS[record["unit"]]
    absent = "" if record["goal"] == "more" else ", of which less is asked for"
    of = "multiples" if record["do"] == "scale" else f"units of {unit}"
    return (
        f"concept: {record['scorer']['said']}{absent}; strengths of {record['do']} in {of}; "
        f"means over {counted(len(record['prompts']), 'prompt')}"
    )


def _at(cells: Cells, strength: float | None, key: str) -> float | None:
    return cells[strength][key]["value"] if strength in cells else None


def _best(values: Sequence[Sequence[float | None]]) -> list[tuple[int, int]]:
    """The largest of each row that has several."""
    found = []
    for i, row in enumerate(values):
        there = [(value, -j) for j, value in enumerate(row) if value is not None]
        if len(there) > 1 and max(there)[0] >= LEAST:
            found.append((i, -max(there)[1]))
    return found


def _draw(
    matrices: Sequence[Matrix],
    rows: Sequence[str],
    path: Path,
    *,
    corner: str,
    note: str,
    cell: float,
    longest: float,
) -> None:
    """Matrices side by side, whose rows are called once, on the left."""
    with ink.fixed_style():
        names = [ink.fold(name, WORD, longest, 1)[0] for name in rows]
        heads = [[ink.fold(name, WORD, LONGEST, 1)[0] for name in m.columns] for m in matrices]
        left = MARGIN + max(ink.measure(name, WORD) for name in names) + GAP
        top = MARGIN + max(ink.measure(head, WORD) for own in heads for head in own) + GAP
        titled = any(matrix.title for matrix in matrices)
        top += 0.2 if titled else 0
        wide = sum(cell * len(matrix.columns) for matrix in matrices)
        across = left + wide + APART * (len(matrices) - 1) + MARGIN
        lines = ink.fold(note, SMALL, across - 2 * MARGIN, 3)
        height = top + ROW * len(rows) + GAP + 0.12 * len(lines) + MARGIN
        picture = ink.blank(across, height)
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, across)
        axes.set_ylim(height, 0)
        axes.axis("off")
        write_text(axes, left - GAP, top - GAP, corner, ha="right", size=SMALL, color=ink.SOFT)
        for i, name in enumerate(names):
            write_text(axes, left - GAP, top + (i + 0.5) * ROW, name, ha="right")
        start = left
        for matrix, own in zip(matrices, heads, strict=True):
            if titled:
                middle = start + cell * len(own) / 2
                write_text(axes, middle, MARGIN + 0.06, matrix.title, color=ink.SOFT)
            _matrix(axes, matrix, own, (start, top), cell)
            start += cell * len(own) + APART
        for k, line in enumerate(lines):
            y = top + ROW * len(rows) + GAP + 0.12 * (k + 0.5)
            write_text(axes, MARGIN, y, line, ha="left", size=SMALL, color=ink.SOFT)
        ink.save(picture, path)


def _matrix(
    axes: Axes, matrix: Matrix, heads: Sequence[str], corner: tuple[float, float], cell: float
) -> None:
    left, top = corner
    for j, head in enumerate(heads):
        x = left + (j + 0.5) * cell
        if matrix.title:
            write_text(axes, x, top - GAP, head, va="bottom")
        else:
            write_text(axes, x, top - GAP, head, rotation=90.0, va="bottom")
    filled: dict[str, list[Corner]] = {}
    framed: list[Corner] = []
    for i, row in enumerate(matrix.values):
        for j, value in enumerate(row):
            if value is None:
                continue
            x, y = left + j * cell, top + i * ROW
            value = round(value, 2) + 0.0
            colour = ink.COLOURS[SUPPORTS if value >= 0 else OPPOSES]
            fill = ink.tint(colour, DEEPEST * min(1.0, abs(value)))
            filled.setdefault(fill, []).append((x, y))
            if (i, j) in matrix.framed:
                framed.append((x, y))
            text = f"{value:.2f}".replace("-", "\N{MINUS SIGN}")
            write_text(axes, x + cell / 2, y + ROW / 2, text, color=text_colour(fill))
    fill_cells(axes, filled, (cell, ROW), apart=0.8)
    frame_cells(axes, framed, (cell, ROW), inset=0.015, line=0.9)


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

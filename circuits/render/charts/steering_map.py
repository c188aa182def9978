"""A sweep of steering as a figure: directions x strengths, a matrix for each measure."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from circuits.render.charts.heatmap import (
    DEEPEST,
    WORD,
    Corner,
    fill_cells,
    frame_cells,
    shaded,
    text_colour,
    write_text,
)
from circuits.render.figure import ink
from circuits.render.words import NEUTRAL, counted, readable

PAGE = 6.75  # in, two columns of a paper
ROW, LINE = 0.15, 0.12  # in, of cells, and of words
MARGIN, GAP, APART = 0.08, 0.06, 0.14  # in
LONGEST = 1.42  # in, of a line of a name
NARROWEST, WIDEST, NONE = 0.18, 0.4, 0.27
"In, of a cell: with three digits, at most, and of the first, headed `none`."
TITLED = 0.98
"In, of a matrix's title at least."
LEAST = 0.005
"What is framed is written as more than 0."
MEASURES = {"concept": "concept", "fluency": "fluency", "score": "both", "kl": "KL"}
UNTOUCHED = ""
"The method of what is not steered."
ORDER = (UNTOUCHED, "feature", "difference of means", "encoder direction", "random feature")
_Filled = dict[tuple[float, float], dict[str, list[Corner]]]
"Corners of cells by size and colour."
UNITS = {
    "max": "the feature's own largest activation",
    "token": "the largest activation of any feature at a neutral token",
    "activation": "activation",
}


@dataclass(frozen=True)
class DirectionRow:
    """What is written by one direction, by strength; None is no steering."""

    method: str
    called: str
    cells: Mapping[float | None, Mapping[str, Any]]

    @property
    def name(self) -> str:
        """Method and direction."""
        return f"{self.method} {self.called}".strip()


def steering_map(record: Mapping[str, Any], path: Path) -> None:
    """Write a `steering/1` record as matrices of concept, fluency, both in one number, and KL.

    Rows are directions, columns strengths, the same in every row: what was not tried is blank.
    Numbers are hundredths, KL in nats; framed is each row's best. The same record gives the same
    bytes. Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    with ink.fixed_style():
        layout = _MatrixLayout.of(record)
        picture = ink.blank(PAGE, layout.height)
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, PAGE)
        axes.set_ylim(layout.height, 0)
        axes.axis("off")
        filled: _Filled = {}
        for number, key in enumerate(MEASURES):
            _matrix(axes, layout, key, divmod(number, layout.across), filled)
        for size, cells in filled.items():
            fill_cells(axes, cells, size, apart=0.6)
        for k, line in enumerate(layout.note):
            y = layout.height - MARGIN - LINE * (len(layout.note) - k - 0.5)
            write_text(axes, MARGIN, y, line, ha="left", color=ink.SOFT)
        ink.save(picture, path)


def steering_rows(record: Mapping[str, Any]) -> list[DirectionRow]:
    """What is written as the model is and when told to, then each direction, features first."""
    rows = [DirectionRow(UNTOUCHED, "no steering", {None: record["plain"]})]
    if record["instructed"]:
        rows.append(
            DirectionRow(UNTOUCHED, "instruction in the prompt", {None: record["instructed"]})
        )
    by: dict[tuple[str, str], dict[float | None, Mapping[str, Any]]] = {}
    for arm in record["arms"]:
        by.setdefault((arm["method"], _called(arm)), {})[arm["strength"]] = arm
    rows += [DirectionRow(method, name, cells) for (method, name), cells in by.items()]
    return sorted(rows, key=lambda row: ORDER.index(row.method))


def _called(arm: Mapping[str, Any]) -> str:
    label = readable(arm["label"]) if arm["label"] and arm["method"] == "feature" else ""
    return f"{arm['direction']} {label}".strip()


def steering_note(record: Mapping[str, Any]) -> str:
    """What the numbers are, in one line."""
    unit = UNITS[record["unit"]]
    absent = "" if record["goal"] == "more" else ", of which less is asked for"
    of = "multiples" if record["do"] == "scale" else f"units of {unit}"
    return (
        f"concept: {record['scorer']['said']}{absent}; strengths of {record['do']} in {of}; "
        f"means over {counted(len(record['prompts']), 'prompt')}"
    )


@dataclass(frozen=True, kw_only=True)
class _MatrixLayout:
    """Where the matrices stand, in inches; those that a page has no room for come below."""

    groups: Sequence[tuple[str, Sequence[DirectionRow]]]
    strengths: Sequence[float]
    names: Mapping[str, Sequence[str]]
    "lines of each row"
    side: float
    "of the names, at the left"
    across: int
    "matrices in a row"
    most: float
    "the largest KL, nats"
    note: Sequence[str]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "_MatrixLayout":
        rows = steering_rows(record)
        names = {row.name: ink.fold(row.called, WORD, LONGEST, 2) for row in rows}
        lines = [*(line for name in names.values() for line in name), *ORDER]
        side = MARGIN + max(ink.measure(line, WORD) for line in lines) + GAP
        strengths = sorted({s for row in rows for s in row.cells if s is not None})
        needed = max(TITLED, NONE + GAP + NARROWEST * len(strengths))
        fits = (n for n in (4, 2) if _pitch(side, n) - APART >= needed)
        token = "second token" if record["during"] == "generated" else "next token"
        said = (
            f"{steering_note(record)}; in hundredths; framed: the best of its row; KL: of the "
            f"{token}, in nats, darker by its logarithm; blank: not tried; –: nothing to judge"
        )
        found = [_number(cell, "kl") for row in rows for cell in row.cells.values()]
        return cls(
            groups=[(key, list(some)) for key, some in groupby(rows, lambda row: row.method)],
            strengths=strengths, names=names, side=side, across=next(fits, 1),
            most=max((value for value in found if value is not None), default=0.0),
            note=ink.fold(said, WORD, PAGE - 2 * MARGIN, 4),
        )  # fmt: skip

    @property
    def cell(self) -> float:
        count = max(1, len(self.strengths))
        room = _pitch(self.side, self.across) - APART - NONE - GAP
        return min(max(WIDEST, (TITLED - NONE - GAP) / count), room / count)

    @property
    def tall(self) -> float:
        """Of one matrix with its title, its strengths, and a line over each group."""
        rows = sum(self.row(one) for _, rows in self.groups for one in rows)
        return 2 * LINE + GAP + rows + (LINE + GAP) * (len(self.groups) - 1) + 2 * GAP

    @property
    def height(self) -> float:
        down = -(-len(MEASURES) // self.across)
        return MARGIN + down * self.tall + LINE * len(self.note) + MARGIN

    def row(self, row: DirectionRow) -> float:
        """Height of a row: that of its name."""
        return ROW + LINE * (len(self.names[row.name]) - 1)

    def column(self, strength: float | None) -> tuple[float, float]:
        """Left end of a column in its matrix, and its width."""
        if strength is None:
            return 0.0, NONE
        return NONE + GAP + self.cell * self.strengths.index(strength), self.cell


def _pitch(side: float, across: int) -> float:
    """From one matrix to the next."""
    return (PAGE - MARGIN - side + APART) / across


def _matrix(
    axes: Axes, layout: _MatrixLayout, key: str, place: tuple[int, int], filled: _Filled
) -> None:
    """One measure of all directions, group by group; names at the left of the first in a row."""
    down, column = place
    left = layout.side + column * _pitch(layout.side, layout.across)
    y = MARGIN + down * layout.tall + LINE / 2
    write_text(axes, left, y, MEASURES[key], ha="left", color=ink.SOFT, weight="bold")
    _heads(axes, layout, left, y)
    y += LINE / 2 + LINE + GAP
    for method, rows in layout.groups:
        if method:
            if column == 0:
                middle = y + GAP + LINE / 2
                write_text(axes, layout.side - GAP, middle, method, ha="right", color=ink.SOFT)
            y += LINE + GAP
        for row in rows:
            if column == 0:
                _name(axes, layout, row, y)
            _cells(axes, layout, row, key, (left, y), filled)
            y += layout.row(row)


def _heads(axes: Axes, layout: _MatrixLayout, left: float, y: float) -> None:
    """What the columns are, and each strength over its own, in letters that have room."""
    right = left + max(NONE + GAP + layout.cell * len(layout.strengths), TITLED)
    write_text(axes, right, y, "strength", ha="right", color=ink.SOFT)
    below = y + LINE + GAP / 2
    heads = [_head(strength) for strength in layout.strengths]
    widest = max(ink.measure(head, WORD) for head in heads)
    size = WORD * min(1.0, (layout.cell - 0.02) / widest)
    for strength, head in zip(layout.strengths, heads, strict=True):
        x, width = layout.column(strength)
        write_text(axes, left + x + width / 2, below, head, color=ink.SOFT, size=size)
    write_text(axes, left + NONE / 2, below, "none", color=ink.SOFT)


def _head(strength: float) -> str:
    """`-.5` for -0.5, which has no room over a narrow cell."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{strength:g}").replace("-", "\N{MINUS SIGN}")


def _name(axes: Axes, layout: _MatrixLayout, row: DirectionRow, y: float) -> None:
    lines = layout.names[row.name]
    middle = y + layout.row(row) / 2 - LINE * (len(lines) - 1) / 2
    for k, line in enumerate(lines):
        write_text(axes, layout.side - GAP, middle + LINE * k, line, ha="right")


def _cells(
    axes: Axes, layout: _MatrixLayout, row: DirectionRow, key: str, corner: Corner, filled: _Filled
) -> None:
    """Numbers of a row, the largest of `both` framed; its cells go to `filled`."""
    left, top = corner
    height = layout.row(row)
    best = _best(row) if key == "score" else None
    for strength, found in row.cells.items():
        value = _number(found, key)
        if value is None:
            text, fill = "–", ink.STRIPE
        else:
            text, fill = _nats(value, layout.most) if key == "kl" else _hundredths(value)
        x, width = layout.column(strength)
        filled.setdefault((width, height), {}).setdefault(fill, []).append((left + x, top))
        middle = (left + x + width / 2, top + height / 2)
        write_text(axes, *middle, text, color=text_colour(fill))
        if best is not None and strength == best:
            frame_cells(axes, [(left + x, top)], (width, height), inset=0.01, line=0.8)


def _number(cell: Mapping[str, Any], key: str) -> float | None:
    return cell[key]["value"] if key in cell else None


def _hundredths(value: float) -> tuple[str, str]:
    value, fill = shaded(value)
    return f"{100 * value:.0f}".replace("-", "\N{MINUS SIGN}"), fill


def _nats(value: float, most: float) -> tuple[str, str]:
    """Two digits, and grey by log(1 + KL), the largest of the figure the darkest."""
    share = math.log1p(max(0.0, value)) / math.log1p(most) if most > 0 else 0.0
    text = f"{value:.0f}" if round(value, 1) >= 10 or value < LEAST else f"{value:.1f}"
    if LEAST <= value < 0.995:
        text = f"{value:.2f}".removeprefix("0")
    return text, ink.tint(ink.COLOURS[NEUTRAL], DEEPEST * round(share, 2))


def _best(row: DirectionRow) -> float | None:
    """The strength of the largest of several, the first where several are as large."""
    found = [(_number(cell, "score"), s) for s, cell in row.cells.items() if s is not None]
    there = [(value, -s) for value, s in found if value is not None]
    if len(there) < 2 or max(there)[0] < LEAST:
        return None
    return -max(there)[1]

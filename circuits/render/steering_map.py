"""A sweep of steering as a figure: directions x strengths, a matrix for each measure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from circuits.render import ink
from circuits.render.heatmap import (
    WORD,
    Corner,
    fill_cells,
    frame_cells,
    shaded,
    text_colour,
    write_text,
)
from circuits.render.words import counted, readable

PAGE = 6.75  # in, two columns of a paper
ROW, LINE = 0.15, 0.12  # in, of cells, and of words
MARGIN, GAP, APART = 0.08, 0.06, 0.12  # in
LONGEST = 1.75  # in, of a name
NARROWEST = 0.18  # in, a cell with three digits
LEAST = 0.005
"What is framed is written as more than 0."
MEASURES = {"concept": "concept", "fluency": "fluency", "score": "both"}
Cells = Mapping[float | None, Mapping[str, Any]]
"Of one direction, by strength; None is no steering."
UNITS = {
    "max": "the feature's own largest activation",
    "token": "the largest activation of any feature at a neutral token",
    "activation": "activation",
}


def steering_map(record: Mapping[str, Any], path: Path) -> None:
    """Write a `steering/1` record as three matrices: concept, fluency and both in one number.

    Rows are directions, columns strengths, each block of rows with its own; numbers are
    hundredths, framed is each row's best. The same record gives the same bytes. Raises
    `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    with ink.fixed_style():
        layout = _Layout.of(record)
        picture = ink.blank(PAGE, layout.height)
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, PAGE)
        axes.set_ylim(layout.height, 0)
        axes.axis("off")
        for number, key in enumerate(MEASURES):
            _matrix(axes, layout, key, *divmod(number, layout.across))
        for k, line in enumerate(layout.note):
            y = layout.height - MARGIN - LINE * (len(layout.note) - k - 0.5)
            write_text(axes, MARGIN, y, line, ha="left", color=ink.SOFT)
        ink.save(picture, path)


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


def steering_note(record: Mapping[str, Any]) -> str:
    """What the numbers are, in one line."""
    unit = UNITS[record["unit"]]
    absent = "" if record["goal"] == "more" else ", of which less is asked for"
    of = "multiples" if record["do"] == "scale" else f"units of {unit}"
    return (
        f"concept: {record['scorer']['said']}{absent}; strengths of {record['do']} in {of}; "
        f"means over {counted(len(record['prompts']), 'prompt')}"
    )


@dataclass(frozen=True)
class _Block:
    """Rows in a row that have the same strengths."""

    strengths: tuple[float | None, ...]
    rows: list[tuple[str, Cells]]

    @property
    def headed(self) -> bool:
        """Whether its strengths stand over it: what is not steered has none."""
        return self.strengths != (None,)


def _blocks(rows: Sequence[tuple[str, Cells]]) -> list[_Block]:
    blocks: list[_Block] = []
    for row in rows:
        strengths = tuple(sorted(row[1], key=lambda s: (s is not None, s or 0.0)))
        if not blocks or blocks[-1].strengths != strengths:
            blocks.append(_Block(strengths, []))
        blocks[-1].rows.append(row)
    return blocks


@dataclass(frozen=True, kw_only=True)
class _Layout:
    """Where the matrices stand, in inches; those that a page has no room for come below."""

    blocks: Sequence[_Block]
    side: float
    "of the names, at the left"
    across: int
    "matrices in a row"
    note: Sequence[str]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "_Layout":
        blocks = _blocks(steering_rows(record))
        names = [ink.fold(name, WORD, LONGEST, 1)[0] for block in blocks for name, _ in block.rows]
        side = MARGIN + max(ink.measure(name, WORD) for name in names) + GAP
        most = max(len(block.strengths) for block in blocks)
        fits = (n for n in (3, 2) if _width(side, n) >= NARROWEST * most)
        said = f"{steering_note(record)}; numbers in hundredths; framed: the best of its row"
        note = ink.fold(said, WORD, PAGE - 2 * MARGIN, 4)
        return cls(blocks=blocks, side=side, across=next(fits, 1), note=note)

    @property
    def width(self) -> float:
        return _width(self.side, self.across)

    @property
    def tall(self) -> float:
        """Of one matrix with its title."""
        rows = sum(len(block.rows) for block in self.blocks)
        return LINE + ROW * rows + (LINE + GAP) * sum(b.headed for b in self.blocks) + 2 * GAP

    @property
    def height(self) -> float:
        down = -(-len(MEASURES) // self.across)
        return MARGIN + down * self.tall + GAP + LINE * len(self.note) + MARGIN


def _width(side: float, across: int) -> float:
    return (PAGE - MARGIN - side - APART * (across - 1)) / across


def _matrix(axes: Axes, layout: _Layout, key: str, down: int, column: int) -> None:
    """One measure of all directions, block by block; names at the left of the first in a row."""
    left = layout.side + column * (layout.width + APART)
    y = MARGIN + down * layout.tall
    title = MEASURES[key]
    write_text(axes, left + layout.width / 2, y + LINE / 2, title, color=ink.SOFT, weight="bold")
    y += LINE + GAP
    for block in layout.blocks:
        cell = layout.width / len(block.strengths)
        if block.headed:
            for j, strength in enumerate(block.strengths):
                x, middle = left + (j + 0.5) * cell, y + GAP + LINE / 2
                write_text(axes, x, middle, _head(strength), color=ink.SOFT)
            y += LINE + GAP
        if column == 0:
            for i, (name, _) in enumerate(block.rows):
                said = ink.fold(name, WORD, LONGEST, 1)[0]
                write_text(axes, layout.side - GAP, y + (i + 0.5) * ROW, said, ha="right")
        _cells(axes, block, key, (left, y), cell)
        y += ROW * len(block.rows)


def _head(strength: float | None) -> str:
    """`-.5` for -0.5, which has no room over a narrow cell; 0 where there is no steering."""
    text = f"{strength or 0.0:g}"
    return re.sub(r"^(-?)0\.", r"\1.", text).replace("-", "\N{MINUS SIGN}")


def _cells(axes: Axes, block: _Block, key: str, corner: Corner, cell: float) -> None:
    left, top = corner
    values = [[cells[s][key]["value"] for s in block.strengths] for _, cells in block.rows]
    filled: dict[str, list[Corner]] = {}
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            x, y = left + j * cell, top + i * ROW
            if value is None:
                continue
            value, fill = shaded(value)
            filled.setdefault(fill, []).append((x, y))
            text = f"{100 * value:.0f}".replace("-", "\N{MINUS SIGN}")
            write_text(axes, x + cell / 2, y + ROW / 2, text, color=text_colour(fill))
    fill_cells(axes, filled, (cell, ROW), apart=0.6)
    best = _best(values) if key == "score" else []
    frame_cells(
        axes, [(left + j * cell, top + i * ROW) for i, j in best], (cell, ROW),
        inset=0.01, line=0.8,
    )  # fmt: skip


def _best(values: Sequence[Sequence[float | None]]) -> list[tuple[int, int]]:
    """The largest of each row that has several."""
    found = []
    for i, row in enumerate(values):
        there = [(value, -j) for j, value in enumerate(row) if value is not None]
        if len(there) > 1 and max(there)[0] >= LEAST:
            found.append((i, -max(there)[1]))
    return found

"""A task's score by the number of features that are kept, as a figure."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from circuits.render.charts.curves import (
    APART,
    FOOT,
    HEIGHT,
    LINE,
    WORD,
    Panel,
    draw_curves,
    draw_legend,
    label_groups,
)
from circuits.render.figure import ink
from circuits.render.figure.spacing import spaced
from circuits.render.words import readable

WIDTH = 3.375  # in, a column of a paper
MARGIN = 0.62  # in, for the names of the lines
LINES = {"model": "model", "replaced": "all features", "nothing": "no feature"}
"What the dotted lines are called, by field of the record."


def score_figure(record: Mapping[str, Any], path: Path) -> None:
    """Write what `circuits sufficiency` found as a figure: its rows, and lines for their ends.

    Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    ends = {name: record[field]["score"] for field, name in LINES.items()}
    panel = Panel(
        label=readable(str(record["metric"])).replace("-", " "),
        record=record,
        field="score",
        ideal=tuple(ends.values()),
        outside=(-math.inf, math.inf),
        least=(min(ends.values()), max(ends.values())),
        across="features kept",
    )
    names = list(panel.rows)
    with ink.fixed_style():
        height = HEIGHT + LINE * (len(names) + 1)
        picture = ink.blank(WIDTH, height)
        axes = picture.subplots()
        picture.subplots_adjust(
            left=0.46 / WIDTH, right=1 - MARGIN / WIDTH, top=HEIGHT / height, bottom=FOOT / height
        )
        draw_curves(axes, panel, names)
        label_groups(axes, panel)
        _name_lines(axes, ends)
        draw_legend(picture, [axes], 1)
        ink.save(picture, path)


def _name_lines(axes: Axes, ends: Mapping[str, float]) -> None:
    """What the dotted lines are, at their right ends, none over another."""
    low, high = axes.get_ylim()
    order = sorted(ends, key=lambda name: ends[name])
    apart = APART / (HEIGHT - FOOT)
    places = spaced(
        [(ends[name] - low) / (high - low) for name in order],
        [apart] * (len(order) - 1),
        apart / 2,
        1 - apart / 2,
    )
    for name, y in zip(order, places, strict=True):
        axes.annotate(
            name, (1, y), xycoords="axes fraction", xytext=(3, 0), textcoords="offset points",
            va="center_baseline", size=WORD, color=ink.SOFT,
        )  # fmt: skip

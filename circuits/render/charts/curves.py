"""The check of a circuit as a figure: faithfulness, completeness, estimate against exact."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuits.render.figure import ink
from circuits.render.figure.spacing import spaced
from circuits.render.words import OPPOSES, SUPPORTS, row_name, support

PANEL, PAGE = 2.2, 6.75  # in, widths of one panel and of all at most
HEIGHT, LINE = 2.0, 0.13  # in, of the panels and of a line of the legend over them
COLUMN = 2.5  # in, of the legend: the longest name of a row
TICK, WORD = 6.5, 6.5  # points
STROKES = (
    (ink.COLOURS[SUPPORTS], "solid", "o"),
    (ink.COLOURS[OPPOSES], (0, (4, 1.5)), "s"),
    ("#6b7785", (0, (1, 1.3)), "^"),
    ("#8a4fae", (0, (5, 1.5, 1, 1.5)), "D"),
    ("#14796b", (0, (2.5, 1.2)), "v"),
    ("#b7791f", (0, (6, 2)), "P"),
    ("#a03565", (0, (1, 2.5)), "X"),
    ("#3c4650", (0, (8, 2, 1, 2)), "p"),
    ("#5a9bd4", (0, (3, 1, 1, 1)), "<"),
    ("#9c6b30", (0, (2, 2)), ">"),
    ("#1f2a37", "solid", "*"),
    ("#c2548a", (0, (5, 2, 2, 2)), "h"),
    ("#4f8f2f", (0, (3, 1.5)), "d"),
    ("#7f7fd0", (0, (1.5, 1.5)), "8"),
)
"One for each row that `circuits verify` writes, and some to spare."
DASHES = ("solid", (0, (4, 1.5)), (0, (1, 1.3)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)))
"Of the rows of one group, one after the other."
FOOT = 0.38  # in, of the axis under a panel
APART = 0.12
"Between two labels on a panel, in."
OUTSIDE = (-0.6, 1.6)
"Curves are drawn within these values: a control far off the scale must not flatten the rest."
LEAST = (0.0, 0.5)
"The axis holds at least these values: noise about zero must not look like a curve."


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows that are drawn alike: those of the circuit in full colour, controls in muted ones."""

    label: str
    "written beside its first row; of some there is none"
    starts: tuple[str, ...]
    "what the names of its rows begin with"
    colour: str
    width: float = 0.8  # points


GROUPS = (
    Group(
        label="strongest", starts=("circuit", "strongest"), colour=ink.COLOURS[SUPPORTS], width=1.5
    ),
    Group(label="random", starts=("random",), colour="#a9b1ba"),
    Group(label="untrained", starts=("untrained",), colour="#a8905c"),
    Group(label="neurons", starts=("neurons",), colour="#2f3740"),
    Group(label="", starts=("",), colour="#857399"),
)


def group_of(row: str) -> Group:
    """The first group that claims a row."""
    return next(group for group in GROUPS if row.startswith(group.starts))


@dataclass(frozen=True)
class Panel:
    """One field of the rows of a record, and the values that its curves are held against."""

    label: str
    record: Mapping[str, Any]
    field: str
    ideal: tuple[float, ...]
    outside: tuple[float, float] = OUTSIDE
    least: tuple[float, float] = LEAST
    across: str = "nodes kept"

    @property
    def rows(self) -> dict[str, NDArray[np.float64]]:
        """Rows of the record that have values of this field."""
        rows = self.record.get("rows") or {}
        found = {row: _array(values.get(self.field) or []) for row, values in rows.items()}
        return {row: values for row, values in found.items() if np.isfinite(values).any()}


def curves_figure(verification: Mapping[str, Any], path: Path) -> None:
    """Write what `circuits verify` found as a figure: curves that exist, and the scatter.

    The strongest nodes' curves are in full colour and controls in muted ones, labelled by group
    where the first are furthest ahead. The shaded band is the first row's 95 % interval, on its own
    prompts and on those held out; the dotted line is the ideal.

    Raises `ValueError` for another suffix, and for a record with neither curves nor points.
    """
    ink.checked_suffix(path)
    curves, held_out = (verification.get(part) or {} for part in ("curves", "held_out"))
    panels = [
        Panel("faithfulness", curves, "faithfulness", (1.0,)),
        Panel("faithfulness, held out", held_out, "faithfulness", (1.0,)),
        Panel("completeness", curves, "completeness", (0.0,)),
    ]
    shown = [panel for panel in panels if panel.rows]
    names = list(dict.fromkeys(name for panel in shown for name in panel.rows))
    points = _points(verification)
    count = len(shown) + (len(points) > 0)
    if not count:
        raise ValueError(
            "the verification holds no curves and no points: run `circuits verify` first"
        )
    with ink.fixed_style():
        width = min(PANEL * count, PAGE)
        columns = max(1, int(width / COLUMN))
        height = HEIGHT + LINE * (-(-len(names) // columns) + 1)
        picture = ink.blank(width, height)
        axes = picture.subplots(1, count, squeeze=False)[0]
        picture.subplots_adjust(
            left=0.42 / width,
            right=1 - 0.12 / width,
            top=HEIGHT / height,
            bottom=FOOT / height,
            wspace=0.36,
        )
        for place, panel in zip(axes, shown, strict=False):
            draw_curves(place, panel, names)
        if shown:
            label_groups(axes[0], shown[0])
            draw_legend(picture, axes[: len(shown)], columns)
        if len(points):
            _draw_scatter(axes[-1], points, verification)
        ink.save(picture, path)


def draw_legend(picture: Figure, panels: Iterable[Axes], columns: int) -> None:
    """One legend for all panels, over them."""
    entries = [zip(*panel.get_legend_handles_labels(), strict=True) for panel in panels]
    curves = {label: handle for panel in entries for handle, label in panel}
    picture.legend(
        curves.values(),
        curves.keys(),
        loc="upper left",
        bbox_to_anchor=(0.01, 1.0),
        ncols=columns,
        fontsize=TICK,
        frameon=False,
        handlelength=2.6,
        columnspacing=1.4,
        labelspacing=0.35,
    )


def _points(verification: Mapping[str, Any]) -> NDArray[np.float64]:
    """Supports of the verified nodes, estimate and exact: an array of pairs."""
    records = (verification.get("nodes") or {}).get("points") or []
    pairs = [tuple(support(p[way], verification) for way in ("estimate", "exact")) for p in records]
    return _array([pair for pair in pairs if None not in pair]).reshape(-1, 2)


def draw_curves(axes: Axes, panel: Panel, names: Sequence[str]) -> None:
    """`names` give each row its colour, the same in all panels."""
    sizes = np.maximum(_array(panel.record["sizes"]), 0.5)
    for value in panel.ideal:
        axes.axhline(value, color=ink.SOFT, linewidth=0.6, linestyle=(0, (1, 2)))
    for row, values in panel.rows.items():
        group, same = group_of(row), [n for n in names if group_of(n) == group_of(row)]
        colour, dashes = group.colour, DASHES[same.index(row) % len(DASHES)]
        marker = STROKES[names.index(row) % len(STROKES)][2]
        axes.plot(sizes, values, color=colour, linestyle=dashes, marker=marker, markersize=2.2,
                  linewidth=group.width, zorder=2 + (group == GROUPS[0]),
                  label=ink.drawable(row_name(row)))  # fmt: skip
        if row == names[0]:
            prefix = "completeness_" if panel.field == "completeness" else ""
            record = panel.record["rows"][row]
            ends = (record.get(f"{prefix}{end}") or [] for end in ("low", "high"))
            low, high = map(_array, ends)
            if len(low) == len(high) == len(sizes):
                axes.fill_between(sizes, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.set_xscale("log")
    powers = 10.0 ** np.arange(np.ceil(np.log10(sizes.min())), np.log10(sizes.max()) + 1e-9)
    axes.set_xticks(powers, [_power(power) for power in powers])
    axes.minorticks_off()
    shown = np.concatenate(list(panel.rows.values()))
    low, high = min(np.nanmin(shown), panel.least[0]), max(np.nanmax(shown), panel.least[1])
    room = 0.06 * (high - low)
    axes.set_ylim(max(low - room, panel.outside[0]), min(high + room, panel.outside[1]))
    _dress(axes, panel.across, panel.label)


def label_groups(axes: Axes, panel: Panel) -> None:
    """Names of groups beside their first rows, at the size where the circuit is furthest ahead."""
    firsts: dict[Group, NDArray[np.float64]] = {}
    for row, values in panel.rows.items():
        if (group := group_of(row)).label:
            firsts.setdefault(group, values)
    own, *controls = (firsts[group] for group in sorted(firsts, key=GROUPS.index))
    if GROUPS[0] not in firsts or not controls:
        return
    ahead = own - np.max(controls, axis=0)
    if not np.isfinite(ahead).any():
        return
    at = int(np.nanargmax(ahead))
    low, high = axes.get_ylim()
    order = sorted(firsts, key=lambda group: (float(firsts[group][at]), group.label))
    wanted = [(float(np.clip(firsts[g][at], low, high)) - low) / (high - low) for g in order]
    apart = APART / (HEIGHT - FOOT)
    places = spaced(wanted, [apart] * (len(order) - 1), apart / 2, 1 - apart / 2)
    early = at < len(own) / 2
    x = max(panel.record["sizes"][at], 0.5)
    for group, y in zip(order, places, strict=True):
        axes.annotate(
            group.label, (x, low + y * (high - low)), xytext=(5 if early else -5, 0),
            textcoords="offset points", ha="left" if early else "right", va="center_baseline",
            size=WORD, color=group.colour, zorder=5,
            bbox={"boxstyle": "square,pad=0.05", "fc": "white", "ec": "none", "alpha": 0.7},
        )  # fmt: skip


def _draw_scatter(axes: Axes, points: NDArray[np.float64], verification: Mapping[str, Any]) -> None:
    low, high = min(points.min(), 0.0), max(points.max(), 0.0)
    room = 0.06 * ((high - low) or 1.0)
    limits = (low - room, high + room)
    axes.plot(limits, limits, color=ink.SOFT, linewidth=0.6, linestyle=(0, (1, 2)))
    for positive, group, marker in ((True, SUPPORTS, "o"), (False, OPPOSES, "s")):
        part = points[(points[:, 1] >= 0) == positive]
        axes.plot(part[:, 0], part[:, 1], marker, color=ink.COLOURS[group], markersize=2.4,
                  alpha=0.65, markeredgewidth=0)  # fmt: skip
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    nodes = verification.get("nodes") or {}
    found = {"ρ": nodes.get("spearman"), "slope": nodes.get("slope")}
    words = [f"{name} = {value:.2f}" for name, value in found.items() if value is not None]
    axes.text(0.04, 0.96, "\n".join(words), transform=axes.transAxes, size=TICK, va="top")
    _dress(axes, "support, estimate", "support, exact")


def _power(value: float) -> str:
    """`10k` for 10,000, which has no room under a narrow panel."""
    return f"{value:.0f}" if value < 1000 else f"{value / 1000:.0f}k"


def _dress(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across, size=WORD, labelpad=2)
    axes.set_ylabel(up, size=WORD, labelpad=2)
    axes.tick_params(labelsize=TICK, width=0.5, length=2, pad=2, color=ink.SOFT)
    axes.spines[["top", "right"]].set_visible(False)


def _array(values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers with NaN where the record says null."""
    return np.array(values, dtype=float)

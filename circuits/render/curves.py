"""The check of a circuit as a figure: faithfulness, completeness, estimate against exact."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuits.render import ink
from circuits.render.words import OPPOSES, SUPPORTS, support

PANEL = 2.2  # in, width of one panel
HEIGHT, LINE, COLUMNS = 2.0, 0.13, 4  # in, of the panels and of a line of the legend over them
TICK, WORD = 5.5, 6.5  # points
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
)
OUTSIDE = (-0.6, 1.6)
"Curves are drawn within these values: a control far off the scale must not flatten the rest."
CURVES = (("faithfulness", 1.0), ("completeness", 0.0))


def curves_figure(verification: Mapping[str, Any], path: Path) -> None:
    """Write what `circuits verify` found as `.svg` or `.pdf`: curves that exist, and the scatter.

    The shaded band is the first row's 95 % interval; the dotted line is the ideal.

    Raises `ValueError` for another suffix, and for a record with neither curves nor points.
    """
    ink.checked_suffix(path)
    curves = verification.get("curves") or {}
    shown = [(name, ideal) for name, ideal in CURVES if _known(curves, name)]
    points = _points(verification)
    count = len(shown) + (len(points) > 0)
    if not count:
        raise ValueError(
            "the verification holds no curves and no points: run `circuits verify` first"
        )
    with ink.fixed_style():
        lines = -(-max((len(_known(curves, name)) for name, _ in shown), default=0) // COLUMNS)
        height = HEIGHT + LINE * (lines + 1)
        picture = ink.blank(PANEL * count, height)
        panels = picture.subplots(1, count, squeeze=False)[0]
        picture.subplots_adjust(
            left=0.42 / (PANEL * count),
            right=1 - 0.06 / (PANEL * count),
            top=HEIGHT / height,
            bottom=0.38 / height,
            wspace=0.36,
        )
        for axes, (name, ideal) in zip(panels, shown, strict=False):
            _draw_curves(axes, curves, name, ideal)
        if shown:
            _draw_legend(picture, panels[0])
        if len(points):
            _draw_scatter(panels[-1], points, verification)
        ink.save(picture, path)


def _draw_legend(picture: Figure, panel: Axes) -> None:
    """One legend for all panels, over them."""
    picture.legend(
        *panel.get_legend_handles_labels(),
        loc="upper left",
        bbox_to_anchor=(0.01, 1.0),
        ncols=COLUMNS,
        fontsize=TICK,
        frameon=False,
        handlelength=2.6,
        columnspacing=1.4,
    )


def _known(curves: Mapping[str, Any], name: str) -> dict[str, NDArray[np.float64]]:
    """Rows of the record that have values of this curve."""
    rows = curves.get("rows") or {}
    found = {row: _array(values.get(name) or []) for row, values in rows.items()}
    return {row: values for row, values in found.items() if np.isfinite(values).any()}


def _points(verification: Mapping[str, Any]) -> NDArray[np.float64]:
    """Supports of the verified nodes, estimate and exact: an array of pairs."""
    records = (verification.get("nodes") or {}).get("points") or []
    pairs = [(support(p["estimate"]), support(p["exact"])) for p in records]
    return _array([pair for pair in pairs if None not in pair]).reshape(-1, 2)


def _draw_curves(axes: Axes, curves: Mapping[str, Any], name: str, ideal: float) -> None:
    sizes = np.maximum(_array(curves["sizes"]), 0.5)
    axes.axhline(ideal, color=ink.SOFT, linewidth=0.6, linestyle=(0, (1, 2)))
    names = list(curves["rows"])
    for row, values in _known(curves, name).items():
        colour, dashes, marker = STROKES[names.index(row) % len(STROKES)]
        axes.plot(sizes, values, color=colour, linestyle=dashes, marker=marker, markersize=2.2,
                  linewidth=1.1, label=ink.drawable(row))  # fmt: skip
        if name == "faithfulness" and row == names[0]:
            low, high = (_array(curves["rows"][row].get(end) or []) for end in ("low", "high"))
            if len(low) == len(high) == len(sizes):
                axes.fill_between(sizes, low, high, color=colour, alpha=0.13, linewidth=0)
    axes.set_xscale("log")
    powers = 10.0 ** np.arange(np.ceil(np.log10(sizes.min())), np.log10(sizes.max()) + 1e-9)
    axes.set_xticks(powers, [f"{power:,.0f}" for power in powers])
    axes.minorticks_off()
    shown = np.concatenate(list(_known(curves, name).values()))
    low, high = np.nanmin(shown), np.nanmax(shown)
    room = 0.06 * (high - low)
    axes.set_ylim(max(low - room, OUTSIDE[0]), min(high + room, OUTSIDE[1]))
    _dress(axes, "nodes in the circuit", name)


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


def _dress(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across, size=WORD, labelpad=2)
    axes.set_ylabel(up, size=WORD, labelpad=2)
    axes.tick_params(labelsize=TICK, width=0.5, length=2, pad=2, color=ink.SOFT)
    axes.spines[["top", "right"]].set_visible(False)


def _array(values: Sequence[Any]) -> NDArray[np.float64]:
    """Numbers with NaN where the record says null."""
    return np.array(values, dtype=float)

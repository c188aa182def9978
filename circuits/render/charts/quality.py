"""The quality of a suite as a figure: variance unexplained against features per token."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from circuits.render.charts.curves import STROKES, TICK, WORD
from circuits.render.figure import ink

WIDTH, HEIGHT, LEGEND = 3.4, 2.3, 0.34  # in, of the figure, of the panel and of the legend over it
CONTROLS = {"untrained": "x", "PCA": "_", "linear": "_"}
WORDS = {"x": "untrained", "_": "PCA, linear: of rank L0"}
LIMITS = (1e-3, 2.0)
"FVUs are drawn within these values: a control far off the scale must not flatten the rest."
ALONE = 1.0
"Decades of the axis that are shown where every dictionary has the same L0."


@dataclass(frozen=True)
class _DictionaryColumn:
    """A dictionary and its controls, drawn over each other."""

    kind: str
    layer: str
    figures: Mapping[str, Any]

    @property
    def marks(self) -> Iterator[tuple[str | None, Mapping[str, Any]]]:
        """The name of the control, None for the dictionary itself, and its figures."""
        yield from self.figures.get("controls", {}).items()
        yield None, self.figures


def quality_figure(record: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Write what `circuits evaluate` found, by dictionary, as `.svg` or `.pdf`.

    A mark for each dictionary with its layer and its 95 % interval, coloured by kind, over its
    controls. Dictionaries of one L0 stand side by side about it, in order of kind and layer. The
    dotted line is what giving the mean would leave unexplained.

    Raises `ValueError` for another suffix, and for a record of no dictionaries.
    """
    ink.checked_suffix(path)
    columns = sorted(
        map(_column, record, record.values()), key=lambda c: (c.kind, len(c.layer), c.layer)
    )
    if not columns:
        raise ValueError("the record holds no dictionaries: run `circuits evaluate` first")
    with ink.fixed_style():
        picture = ink.blank(WIDTH, HEIGHT + LEGEND)
        axes = picture.subplots()
        picture.subplots_adjust(
            left=0.42 / WIDTH, right=1 - 0.08 / WIDTH, top=1 - LEGEND / (HEIGHT + LEGEND),
            bottom=0.36 / (HEIGHT + LEGEND),
        )  # fmt: skip
        _draw(axes, columns)
        _draw_legend(picture, columns)
        ink.save(picture, path)


def _column(name: str, figures: Mapping[str, Any]) -> _DictionaryColumn:
    sites = [site.partition(".") for site in name.split("-")]
    return _DictionaryColumn("-".join(kind for kind, _, _ in sites), sites[-1][2], figures)


def _draw(axes: Axes, columns: Sequence[_DictionaryColumn]) -> None:
    axes.set(xscale="log", yscale="log")
    axes.axhline(1, color=ink.SOFT, linewidth=0.6, linestyle=(0, (1, 2)))
    strokes = _strokes(columns)
    lowest = 1.0
    for column, shift in zip(columns, _shifts([c.figures["l0"] for c in columns]), strict=True):
        full, marker = strokes[column.kind]
        for control, figures in column.marks:
            colour = full if control is None else ink.tint(full, 0.55)
            x, y = max(figures["l0"], 0.1) * 10**shift, float(np.clip(figures["fvu"], *LIMITS))
            ends = np.clip(figures["intervals"]["fvu"] or (y, y), *LIMITS)
            axes.plot([x, x], ends, color=colour, linewidth=0.5)
            axes.plot(x, y, marker if control is None else CONTROLS[control], color=colour,
                      markersize=3, markeredgewidth=0.7)  # fmt: skip
            lowest = min(lowest, float(ends[0]))
            if control is None:
                axes.annotate(column.layer, (x, y), xytext=(2.4, 0), textcoords="offset points",
                              fontsize=4, va="center", color=colour)  # fmt: skip
    _dress(axes, [c.figures["l0"] for c in columns], lowest)


def _strokes(columns: Sequence[_DictionaryColumn]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each kind."""
    kinds = dict.fromkeys(c.kind for c in columns)
    return {k: (c, marker) for k, (c, _, marker) in zip(kinds, cycle(STROKES), strict=False)}


def _distinct(l0: Sequence[float]) -> NDArray[np.float64]:
    """Sparsities that differ when written with two digits."""
    return np.unique([float(f"{max(value, 0.1):.2g}") for value in l0])


def _room(distinct: NDArray[np.float64]) -> float:
    """The smallest gap between two sparsities, in decades."""
    return float(np.diff(np.log10(distinct)).min()) if len(distinct) > 1 else ALONE


def _shifts(l0: Sequence[float]) -> NDArray[np.float64]:
    """How far each column stands from its L0, in decades: never as far as half way to the next."""
    places = (np.arange(len(l0)) + 0.5) / len(l0) - 0.5
    return 0.8 * _room(_distinct(l0)) * places


def _dress(axes: Axes, l0: Sequence[float], lowest: float) -> None:
    distinct = _distinct(l0)
    margin = 10 ** max(0.5 * _room(distinct), 0.05)
    axes.set_xlim(distinct[0] / margin, distinct[-1] * margin)
    ticks = distinct if len(distinct) < 7 else _ticks(distinct[0], distinct[-1])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(lowest / 1.2, LIMITS[1])
    ticks = _ticks(lowest / 1.2, LIMITS[1])
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("features per token (L0), equal ones side by side", size=WORD, labelpad=2)
    axes.set_ylabel("variance unexplained (FVU)", size=WORD, labelpad=2)
    axes.tick_params(labelsize=TICK, width=0.5, length=2, pad=2, color=ink.SOFT)
    axes.spines[["top", "right"]].set_visible(False)


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two numbers."""
    steps = (digit * 10.0**power for power in range(-4, 7) for digit in (1, 2, 5))
    return [step for step in steps if low <= step <= high]


def _draw_legend(picture: Figure, columns: Sequence[_DictionaryColumn]) -> None:
    """Kinds, then controls, over the panel."""
    axes = picture.axes[0]
    used = {CONTROLS[name] for c in columns for name, _ in c.marks if name is not None}
    entries = [(colour, marker, kind) for kind, (colour, marker) in _strokes(columns).items()]
    entries += [(ink.SOFT, marker, words) for marker, words in WORDS.items() if marker in used]
    handles = [
        axes.plot([], [], marker, color=colour, markersize=3, label=ink.drawable(words))[0]
        for colour, marker, words in entries
    ]
    picture.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(0.01, 1.0), ncols=3, fontsize=TICK,
        frameon=False, handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip

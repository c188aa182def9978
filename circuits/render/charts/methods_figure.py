"""How well each method tells texts apart, by the features and by the texts it has, as a figure."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from circuits.render.charts.curves import STROKES, TICK, WORD, draw_legend
from circuits.render.figure import ink

WIDTH, ROW, GAP = 3.375, 1.0, 0.14  # in, a column of a paper, a row of panels, and between two
SHARES = 1, 1.45
"Of the width, by features and by texts: those have two lines of numbers."
LEFT, RIGHT, FOOT, LINE = 0.42, 0.1, 0.47, 0.13  # in
MEASURES = {"f1": "F1", "auroc": "AUROC", "tpr": "TPR at 1% FPR"}
STROKE_OF = {
    "features": 0,
    "untrained dictionaries": 2,
    "linear probe": 1,
    "difference of means": 3,
    "words": 4,
}
"Which of `STROKES` a method has: what is learned of features in blue, its control in grey."
DASHES_OF = {"linear probe": (0, (4, 4)), "difference of means": (4, (4, 4))}
"Dashes of one in the gaps of the other: both often have the same values."
RING = "difference of means"
"Its marks are open and large, and seen about those of the probe."
BAND = 0.09
"How deep a band is: five of them lie over one another."
BANDS = {"interval": "bands: 95% intervals", "range": "bands: least to most of {} splits"}
"What a record has beside a measure, and what the legend calls it."
APART = 0.04  # in, between two numbers under an axis
Curves = Mapping[float, Sequence[Mapping[str, Any]]]
"By what stands on the axis across, the methods."


def methods_figure(
    record: Mapping[str, Any], path: Path, *, measures: Sequence[str] = tuple(MEASURES)
) -> None:
    """Write the record of a detector as `.svg`, `.pdf` or `.png`.

    F1, AUROC and TPR at 1 % FPR, or those `measures` asked for, against the number of features,
    left, and of texts of each kind learned from, right, of all methods; what does not depend on the
    number of features lies flat. Bands are 95 % intervals, or from the least to the most of several
    splits, as the legend says; a record without them has no bands. Further tests have rows of their
    own. The same record gives the same bytes.

    Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    tests = {"": record, **(record.get("tests") or {})}
    with ink.fixed_style():
        rows = len(measures) * len(tests)
        head = 3 * LINE + 0.06
        height = head + rows * ROW + (rows - 1) * GAP + FOOT
        picture = ink.blank(WIDTH, height)
        panels = picture.subplots(
            rows, 2, sharex="col", sharey="row", squeeze=False, width_ratios=SHARES
        )
        picture.subplots_adjust(
            left=LEFT / WIDTH,
            right=1 - RIGHT / WIDTH,
            top=1 - head / height,
            bottom=FOOT / height,
            wspace=0.06,
            hspace=GAP / ROW,
        )
        for number, (name, one) in enumerate(tests.items()):
            for place, measure in enumerate(measures):
                row, label = panels[len(measures) * number + place], MEASURES[measure]
                _row(list(row), record, one, measure)
                said = ink.fold(f"{label}, {name}" if name else label, WORD, ROW, 1)[0]
                row[0].set_ylabel(said, size=WORD)
        panels[-1][0].set_xlabel("features, at most", size=WORD, labelpad=2)
        panels[-1][1].set_xlabel("texts of each kind, and share", size=WORD, labelpad=2)
        picture.align_ylabels(panels[:, 0])
        if said := _bands(record):
            panels[0][1].fill_between([], [], color=ink.SOFT, alpha=2 * BAND, lw=0, label=said)
        draw_legend(picture, panels[0][1:], 2)
        ink.save(picture, path)


def _all(record: Mapping[str, Any]) -> int:
    return int(record["by_share"]["100"])


def _row(
    axes: Sequence[Axes], record: Mapping[str, Any], one: Mapping[str, Any], measure: str
) -> None:
    """One measure on one set of texts: by features, then by texts."""
    methods = one["methods"]
    by_features = {float(k): some for k, some in one["by_features"].items()}
    by_texts = {float(n): some for n, some in one["by_texts"].items()}
    by_texts[float(_all(record))] = methods
    ends = min(by_features), max(by_features)
    lies = {m["name"] for some in by_features.values() for m in some}
    flat = [method for method in methods if method["name"] not in lies]
    for place, curves in ((axes[0], by_features), (axes[0], dict.fromkeys(ends, flat)),
                          (axes[1], by_texts)):  # fmt: skip
        _curves(place, curves, measure)
    every = [m for some in (*by_features.values(), *by_texts.values()) for m in some]
    shown = [end for m in every for end in (m[measure], *(_band(m, measure) or ()))]
    low = min(0.9, math.floor(10 * min(shown)) / 10)
    axes[0].set_ylim(low - 0.02 * (1 - low), 1 + 0.05 * (1 - low))
    axes[0].yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    shares: dict[float, str] = {}
    for share, n in record["by_share"].items():
        few = shares.get(float(n))
        shares[float(n)] = f"{few[:-1]}, {share}%" if few else f"{share}%"
    shares[float(_all(record))] = "all"
    _dress(axes[0], sorted(by_features), {})
    _dress(axes[1], sorted(by_texts), shares)


def _bands(record: Mapping[str, Any]) -> str | None:
    """What bands are, where there are any."""
    of = record["methods"][0]
    found = (said for end, said in BANDS.items() for name in MEASURES if of.get(f"{name}_{end}"))
    return next((said.format(record.get("splits")) for said in found), None)


def _band(method: Mapping[str, Any], measure: str) -> Sequence[float] | None:
    return next((ends for end in BANDS if (ends := method.get(f"{measure}_{end}"))), None)


def _curves(axes: Axes, curves: Curves, measure: str) -> None:
    """Each method's line, and its interval as a band."""
    sizes = sorted(curves)
    for number, method in enumerate(curves[sizes[0]]):
        name = method["name"]
        colour, dashes, marker = STROKES[STROKE_OF[name]]
        records = [curves[size][number] for size in sizes]
        flat = len({record[measure] for record in records}) == 1
        axes.plot(
            sizes, [record[measure] for record in records], color=colour,
            linestyle=DASHES_OF.get(name, dashes), lw=1.3 if number == 0 else 0.9,
            marker=None if flat else marker, markersize=4.4 if name == RING else 2.2,
            mfc="none" if name == RING else colour, mew=0.7, zorder=4 - 0.1 * number, label=name,
        )  # fmt: skip
        bands = [band for record in records if (band := _band(record, measure))]
        if len(bands) == len(sizes):
            low, high = zip(*bands, strict=True)
            axes.fill_between(sizes, low, high, color=colour, alpha=BAND, lw=0)


def _dress(axes: Axes, sizes: Sequence[float], shares: Mapping[float, str]) -> None:
    """Every size has a tick; under it the number, and the share of all, where there is room."""
    axes.set_xscale("log")
    width = axes.get_position().width * WIDTH
    start, stop = map(math.log, axes.get_xlim())
    at = {size: (math.log(size) - start) / (stop - start) * width for size in sizes}
    numbers = _with_room({size: f"{size:g}" for size in sizes}, at, [*shares, *sizes])
    # Every second share first: 1 and 10 % tell more than 5 %.
    below = _with_room(shares, at, [*list(shares)[::2], *shares])
    # Two lines without shares too: numbers of both panels stand on one line.
    axes.set_xticks(sizes, [f"{numbers.get(size, '')}\n{below.get(size, '')}" for size in sizes])
    axes.minorticks_off()
    axes.grid(axis="y", color=ink.STRIPE, lw=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=TICK, width=0.5, length=2, pad=2, color=ink.SOFT)
    axes.spines[["top", "right"]].set_visible(False)


def _with_room(
    said: Mapping[float, str], at: Mapping[float, float], first: Sequence[float]
) -> dict[float, str]:
    """Those of the texts at these places, in inches, that touch none which is chosen before it.

    The last is chosen first, then those that are `first`.
    """
    kept: dict[float, str] = {}
    for size in (max(said, default=0), *first):
        if size not in said or size in kept:
            continue
        if all(
            abs(at[size] - at[other])
            > APART + (ink.measure(said[size], TICK) + ink.measure(text, TICK)) / 2
            for other, text in kept.items()
        ):
            kept[size] = said[size]
    return kept

"""What texts written for missing features bring, as a figure: coverage and accuracy."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from circuits.render.figure import ink
from circuits.render.words import NEUTRAL, OPPOSES, SUPPORTS

WIDTH, ROW, FOOT, HEAD = 6.75, 0.21, 0.58, 0.12  # in
NOTE = 0.16  # in, of FOOT
WORD = 6.5  # points
SAID = "in brackets: texts added; dashed: training alone; features on: means over seeds"
SAID_OF_SCORES = "; accuracy: bars 95% over test texts, thin marks seeds"
NARROWEST = (5.0, 20.0)
"In percent, the axes of coverage and of accuracy: where all is the same, no more is shown."
WAYS = {"stream": (SUPPORTS, "o", "mean residual"), "words": (OPPOSES, "s", "words")}


def synthesis_figure(record: Mapping[str, Any], path: Path) -> None:
    """Write the rows of a record of `synthesise` as `.svg`, `.pdf` or `.png`.

    Left the share of the target's features that are on in training and added texts; right, with a
    test, the accuracy of both classifiers with 95 % intervals over test texts, and a thin mark for
    each seed. Dashed is training alone; a note under the panels says so. The same record gives the
    same bytes.

    Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    rows = record["rows"]
    judged = all(row["scores"] for row in rows.values())
    with ink.fixed_style():
        names = [f"{name} ({row['texts']:.3g})" for name, row in rows.items()]
        side = max(ink.measure(name, WORD) for name in names) + 0.16
        height = HEAD + ROW * len(rows) + FOOT
        picture = ink.blank(WIDTH if judged else WIDTH / 2, height)
        width = picture.get_figwidth()
        axes = picture.subplots(1, 1 + judged, squeeze=False)[0]
        picture.subplots_adjust(
            left=side / width,
            right=1 - 0.14 / width,
            top=1 - HEAD / height,
            bottom=FOOT / height,
            wspace=0.1,
        )
        _coverage(axes[0], rows)
        axes[0].set_yticks(range(len(rows)), names, size=WORD)
        if judged:
            _scores(axes[1], rows)
        for one, least in zip(axes, NARROWEST, strict=False):
            _dress(one, len(rows), least)
        said = SAID + SAID_OF_SCORES * judged
        picture.text(0.08 / width, 0.05 / height, said, size=WORD, color=ink.SOFT, va="bottom")
        ink.save(picture, path)


def _coverage(axes: Axes, rows: Mapping[str, Any]) -> None:
    shares = [100 * row["covered"] for row in rows.values()]
    axes.axvline(shares[0], color=ink.SOFT, lw=0.6, ls=(0, (3, 2)))
    axes.plot(shares, range(len(rows)), "o", color=ink.COLOURS[NEUTRAL], ms=3.6, mew=0)
    axes.set_xlabel("target's features that are on, %", size=WORD, labelpad=2)


def _scores(axes: Axes, rows: Mapping[str, Any]) -> None:
    for number, (way, (stance, marker, label)) in enumerate(WAYS.items()):
        colour, off = ink.COLOURS[stance], 0.17 * (2 * number - 1)
        alone = next(iter(rows.values()))["scores"][way]["accuracy"]
        axes.axvline(100 * alone, color=colour, lw=0.6, ls=(0, (3, 2)))
        for place, row in enumerate(rows.values()):
            score = row["scores"][way]
            y = place + off
            if score["interval"]:
                low, high = (100 * end for end in score["interval"])
                axes.plot([low, high], [y, y], color=colour, lw=0.9)
            seeds: Sequence[float] = score["by_seed"]
            axes.plot([100 * s for s in seeds], [y] * len(seeds), "|", color=colour, ms=4, mew=0.6)
            named = label if place == 0 else None
            axes.plot(100 * score["accuracy"], y, marker, color=colour, ms=3.4, mew=0, label=named)
    axes.set_xlabel("accuracy on test texts, %", size=WORD, labelpad=2)
    axes.set_yticks(range(len(rows)), [""] * len(rows))
    axes.legend(
        fontsize=WORD, frameon=False, loc="lower right", handletextpad=0.1, borderaxespad=0.1,
        bbox_to_anchor=(1.0, (NOTE - FOOT) / (ROW * len(rows)) - 0.02), ncols=2, columnspacing=0.8,
    )  # fmt: skip


def _dress(axes: Axes, rows: int, least: float) -> None:
    axes.set_ylim(rows - 0.5, -0.5)
    # Shares end at 100 %, with room for half a mark.
    low, high = axes.get_xlim()
    if high - low < least:
        middle = min((low + high) / 2, 100 - least / 2)
        low, high = middle - least / 2, middle + 0.55 * least
    axes.set_xlim(low, min(high, 100 + 0.02 * (100 - low)))
    axes.locator_params(axis="x", nbins=8)
    axes.tick_params(labelsize=WORD, width=0.5, length=2, pad=2, color=ink.SOFT)
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    for place in range(0, rows, 2):
        axes.axhspan(place - 0.5, place + 0.5, color=ink.STRIPE, zorder=0, lw=0)

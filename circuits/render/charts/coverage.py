"""Coverage of sets of texts as figures: what they share, and how they grow with samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from circuits.render.charts.curves import STROKES
from circuits.render.charts.heatmap import (
    WORD,
    Corner,
    fill_cells,
    frame_cells,
    text_colour,
    write_text,
)
from circuits.render.figure import ink
from circuits.render.words import SUPPORTS
from hooked_qwen.percents import percent

PAGE = 6.75  # in
CELL, WIDEST = 0.18, 0.34  # in, a cell: the least, and the most
MARGIN, GAP, LINE = 0.08, 0.06, 0.12  # in
TREE = 0.5  # in, of the joined sets
LONGEST = 1.15  # in, of a name
DEEPEST = 0.85
"Share of the colour where all is shared."
PANELS = ("features", "permuted", "tokens", "untrained")
NOTE = (
    "share in % of what the set of the row turns on that the set of the column turns on too; "
    "framed: between halves of the set itself; permuted: features, the samples of both sets "
    "mixed; untrained: features of dictionaries with random weights; tree: sets of features, "
    "joined at 100 less their mean overlap"
)


def overlap_figure(record: Mapping[str, Any], path: Path) -> None:
    """Write what sets of a record of `cover` share, as `.svg`, `.pdf` or `.png`.

    A heat map of features with the tree by which its sets are ordered, and in the same order what
    chance gives, tokens, and untrained dictionaries. The same record gives the same bytes.

    Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    with ink.fixed_style():
        layout = _PanelLayout.of(record)
        picture = ink.blank(layout.width, layout.height)
        axes = picture.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, layout.width)
        axes.set_ylim(layout.height, 0)
        axes.axis("off")
        filled: dict[str, list[Corner]] = {}
        for number, panel in enumerate(PANELS):
            _panel(axes, record, panel, layout, divmod(number, layout.across), filled)
        fill_cells(axes, filled, (layout.cell, layout.cell), apart=0.5)
        tree = record["units"]["features"]["tree"]
        _tree(axes, tree, MARGIN + TREE - GAP, layout.top(0), layout.cell)
        for k, line in enumerate(layout.note):
            y = layout.rows * layout.tall + LINE * (k + 0.5)
            write_text(axes, MARGIN, y, line, ha="left", color=ink.SOFT)
        ink.save(picture, path)


def _left_out(common: Mapping[str, Any] | None) -> str:
    """What was taken off before anything was compared."""
    if not common:
        return ""
    of = f"more than {percent(common['share'])} of " if common["share"] else ""
    return f"; left out: what {of}{common['texts']} common texts turn on"


@dataclass(frozen=True, kw_only=True)
class _PanelLayout:
    """Where the panels stand, in inches; those that a page has no room for come below."""

    order: Sequence[int]
    names: Sequence[str]
    side: float
    "of the names, beside the panels and over them"
    cell: float
    pitch: float
    "from one panel to the next"
    across: int
    "panels in a row"
    note: Sequence[str]

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> "_PanelLayout":
        order = record["units"]["features"]["tree"]["order"]
        names = [ink.fold(record["sets"][i], WORD, LONGEST, 1)[0] for i in order]
        side = max(ink.measure(name, WORD) for name in names) + GAP
        room = PAGE - 2 * MARGIN - TREE - side
        cell = min(WIDEST, max(CELL, (room / len(PANELS) - 2 * GAP) / len(order)))
        titles = 1.15 * max(ink.measure(title, WORD) for title in PANELS)
        pitch = max(cell * len(order), titles) + 2 * GAP
        across = max(1, min(len(PANELS), int((room + 2 * GAP) / pitch)))
        layout = cls(
            order=order, names=names, side=side, cell=cell, pitch=pitch, across=across, note=()
        )
        note = ink.fold(NOTE + _left_out(record["common"]), WORD, layout.width - 2 * MARGIN, 4)
        return replace(layout, note=note)

    @property
    def rows(self) -> int:
        return -(-len(PANELS) // self.across)

    @property
    def tall(self) -> float:
        return self.side + LINE + self.cell * len(self.order) + 5 * GAP

    @property
    def width(self) -> float:
        return max(2.6, 2 * MARGIN + TREE + self.side + self.across * self.pitch)

    @property
    def height(self) -> float:
        return self.rows * self.tall + LINE * len(self.note) + MARGIN

    def top(self, row: int) -> float:
        return row * self.tall + MARGIN + LINE + GAP + self.side


def _panel(
    axes: Axes,
    record: Mapping[str, Any],
    panel: str,
    layout: _PanelLayout,
    place: tuple[int, int],
    filled: dict[str, list[Corner]],
) -> None:
    """Names, numbers and frames of a panel; its cells go to `filled`, by their colour."""
    row, column = place
    left = MARGIN + TREE + layout.side + column * layout.pitch
    top, cell = layout.top(row), layout.cell
    write_text(axes, left, top - layout.side - 2 * GAP, panel, ha="left", weight="bold")
    for j, name in enumerate(layout.names):
        write_text(axes, left + (j + 0.5) * cell, top - GAP, name, rotation=90.0, va="bottom")
        if column == 0:
            write_text(axes, left - GAP, top + (j + 0.5) * cell, name, ha="right")
    for i, own in enumerate(layout.order):
        for j, other in enumerate(layout.order):
            x, y = left + j * cell, top + i * cell
            value = _value(record, panel, own, other)
            fill = ink.STRIPE
            if value is not None:
                fill = ink.tint(ink.COLOURS[SUPPORTS], DEEPEST * round(value, 2))
            filled.setdefault(fill, []).append((x, y))
            text = "–" if value is None else f"{100 * value:.0f}"
            # Three digits have no room in the smallest cells.
            size = WORD if len(text) < 3 or cell > CELL + 0.02 else WORD - 1.5
            colour = text_colour(fill)
            write_text(axes, x + cell / 2, y + cell / 2, text, color=colour, size=size)
    diagonal = [(left + i * cell, top + i * cell) for i in range(len(layout.order))]
    frame_cells(axes, diagonal, (cell, cell), inset=0.012, line=0.6)


def _value(record: Mapping[str, Any], panel: str, own: int, other: int) -> float | None:
    unit = record["units"]["features" if panel == "permuted" else panel]
    if own == other:
        return unit["halves"][own]
    matrix = unit["dealt_anew"]["mean"] if panel == "permuted" else unit["overlap"]
    return matrix[own][other]


def _tree(axes: Axes, tree: Mapping[str, Any], right: float, top: float, cell: float) -> None:
    """Sets joined to the left of their names, further left the less they share, on a scale."""
    places = {s: (top + (i + 0.5) * cell, 0.0) for i, s in enumerate(tree["order"])}
    far = max((height for *_, height in tree["merges"]), default=0.0) or 1.0
    room, count = TREE - 2 * GAP, len(places)
    for number, (a, b, height) in enumerate(tree["merges"]):
        (y, low), (other, also_low) = places[a], places[b]
        x = right - room * height / far
        for start, level in ((y, low), (other, also_low)):
            axes.plot([right - room * level / far, x], [start, start], color=ink.DARK, lw=0.7)
        axes.plot([x, x], [y, other], color=ink.DARK, lw=0.7)
        places[count + number] = ((y + other) / 2, height)
    if count > 1:
        _scale(axes, (right - room, right), far, top + cell * count + GAP / 2)


def _scale(axes: Axes, ends: tuple[float, float], far: float, y: float) -> None:
    """Distance under a tree, from what is furthest to none."""
    axes.plot(ends, (y, y), color=ink.SOFT, lw=0.6)
    for x, distance in zip(ends, (far, 0.0), strict=True):
        axes.plot([x, x], [y, y + 0.03], color=ink.SOFT, lw=0.6)
        text = f"{100 * distance:.0f}"
        write_text(axes, x, y + 0.09, text, size=WORD - 1, color=ink.SOFT)
    said = "distance, %"
    write_text(axes, ends[0] - GAP, y + 0.19, said, ha="left", size=WORD - 1, color=ink.SOFT)


HEIGHT, SAMPLE = 1.9, 0.2  # in, of a panel of curves, and of a line of the legend
CURVES = {
    "features": "features on",
    "untrained": "features on, untrained",
    "tokens": "distinct tokens",
}


def growth_figure(record: Mapping[str, Any], path: Path) -> None:
    """Write how many units n random samples of each set have, as a figure, with its legend.

    Units are features, features of untrained dictionaries, and tokens. Lines are exact means,
    bands 95 % of random orders; a circle is the subset that was chosen one by one, where it keeps
    the share asked for.

    Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    with ink.fixed_style():
        picture = ink.blank(PAGE, 2 * HEIGHT)
        panels = picture.subplots(2, 2).flat
        picture.subplots_adjust(
            left=0.5 / PAGE,
            right=1 - 0.1 / PAGE,
            bottom=0.38 / HEIGHT / 2,
            top=1 - 0.1 / HEIGHT / 2,
            wspace=0.2,
            hspace=0.48 / (HEIGHT - 0.48),
        )
        *drawn, last = panels
        for axes, (unit, up) in zip(drawn, CURVES.items(), strict=True):
            _curves(axes, record, unit, up)
        # Trained and untrained features are to be compared: one scale.
        most = max(axes.get_ylim()[1] for axes in drawn[:2])
        for axes in drawn[:2]:
            axes.set_ylim(top=most)
        _legend(last, record)
        ink.save(picture, path)


def _legend(axes: Axes, record: Mapping[str, Any]) -> None:
    """Names of the sets, of most features first, and what is drawn, in the place of a panel."""
    box = axes.get_position()
    wide, tall = box.width * PAGE, box.height * 2 * HEIGHT
    axes.axis("off")
    axes.set(xlim=(0, wide), ylim=(tall, 0))
    sets, half = record["units"]["features"]["sets"], wide / 2
    order = sorted(record["sets"], key=lambda name: -sets[name]["growth"]["expected"][-1])
    rows = -(-len(order) // 2)
    line = min(LINE, (tall - 5.5 * LINE) / rows)
    for place, name in enumerate(order):
        colour, dashes, _ = STROKES[record["sets"].index(name) % len(STROKES)]
        x, y = half * (place // rows), line * (place % rows + 0.5)
        axes.plot([x, x + SAMPLE], [y, y], color=colour, linestyle=dashes, lw=1.0)
        said = ink.fold(name, WORD, half - SAMPLE - 2 * GAP, 1)[0]
        write_text(axes, x + SAMPLE + GAP, y, said, ha="left", color=colour)
    _explain(axes, line * rows + 1.5 * LINE, percent(record["keep"]))


def _explain(axes: Axes, top: float, keep: str) -> None:
    """What lines, bands and circles are."""
    grey = ink.DARK
    entries = (
        "mean over random samples of the set",
        "95% of random orders",
        f"subset chosen one by one, {keep} of the whole",
    )
    lines, bands, circles = (top + LINE * k * 1.25 for k in range(3))
    axes.plot([0, SAMPLE], [lines, lines], color=grey, lw=1.0)
    axes.fill_between([0, SAMPLE], bands - 0.05, bands + 0.05, color=grey, alpha=0.2, lw=0)
    axes.plot([SAMPLE / 2], [circles], "o", ms=3.2, mfc="white", mec=grey, mew=0.8)
    for y, said in zip((lines, bands, circles), entries, strict=True):
        write_text(axes, SAMPLE + GAP, y, said, ha="left", color=grey)


def _curves(axes: Axes, record: Mapping[str, Any], unit: str, up: str) -> None:
    sets = record["units"][unit]["sets"]
    for number, name in enumerate(record["sets"]):
        colour, dashes, _ = STROKES[number % len(STROKES)]
        one = sets[name]
        growth, subset = one["growth"], one["subset"]
        axes.plot(growth["sizes"], growth["expected"], color=colour, linestyle=dashes, lw=1.0)
        if all(growth["intervals"]):
            low, high = zip(*growth["intervals"], strict=True)
            axes.fill_between(growth["sizes"], low, high, color=colour, alpha=0.12, lw=0)
        if subset:
            axes.plot(
                [len(subset["samples"])], [subset["distinct"]], "o", ms=3.2, mfc="white",
                mec=colour, mew=0.8, zorder=3,
            )  # fmt: skip
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("samples", size=WORD, labelpad=2)
    axes.set_ylabel(up, size=WORD, labelpad=2)
    axes.tick_params(labelsize=WORD, width=0.5, length=2, pad=2, color=ink.SOFT)
    axes.spines[["top", "right"]].set_visible(False)

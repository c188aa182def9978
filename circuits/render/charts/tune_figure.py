"""What training did, beside its controls, as a figure: behaviour, cross-entropy, features."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from circuits.render.figure import ink
from circuits.render.words import SUPPORTS

WIDTH, ROW, TOP, FOOT, NOTE = 6.75, 0.2, 0.38, 0.3, 0.13  # in
GAP, MARGIN = 0.3, 0.1  # in
WORD = 6.5  # points
WORDS = {
    "cjk": ("share of tokens", "written in CJK"),
    "repetition": ("share of 4-grams", "that repeat"),
}
ON = ("pre-activation on prompts", "● chosen, ○ random")
FEATURES = ("chosen features", "random features")
"Filled and hollow dots of the last panel, as the record calls them."
SAID = (
    "dots: means; bars: 95% intervals over prompts or texts (none for pre-activations); "
    "grey line: before training; blue: the model that was kept"
)
ROOM = 0.01
"More of an axis of shares is shown where all are the same."


@dataclass(frozen=True)
class _Panel:
    """A measure of all models, by one kind of dot or by two."""

    title: str
    below: str
    values: Sequence[Sequence[float]]
    "a row for each kind of dot, the filled one first"
    intervals: Sequence[Sequence[float] | None]
    "of the filled dots"
    within: tuple[float, float] = (-math.inf, math.inf)
    "what values can be"


def tune_figure(record: Mapping[str, Any], path: Path) -> None:
    """Write a record of `tune` or `reinforce`: a row for each model, a panel for each measure.

    A note under the panels says what is drawn and what the penalty or the steering was: means,
    their 95 % intervals over prompts and over texts, the model before training as a line, the kept
    model in blue, random features hollow.

    Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    arms = record["arms"]
    panels = _panels(record)
    with ink.fixed_style():
        left = MARGIN + max(ink.measure(name, WORD) for name in arms) + 0.1
        note = ink.fold(f"{SAID}; {_training(record)}", WORD, WIDTH - 2 * MARGIN, 3)
        foot = FOOT + NOTE * len(note)
        height = TOP + ROW * len(arms) + foot
        width = (WIDTH - left - MARGIN - GAP * (len(panels) - 1)) / len(panels)
        picture = ink.blank(WIDTH, height)
        for number, panel in enumerate(panels):
            x = left + number * (width + GAP)
            axes = picture.add_axes(
                (x / WIDTH, foot / height, width / WIDTH, ROW * len(arms) / height)
            )
            _draw(axes, panel, list(arms) if number == 0 else None)
            for line, text in enumerate((panel.title, panel.below)):
                said = ink.fold(text, WORD, width + GAP - 0.08, 1)[0]
                y = (height - 0.1 - 0.13 * line) / height
                picture.text(x / WIDTH, y, said, size=WORD, color=ink.SOFT, va="center")
        for line, text in enumerate(reversed(note)):
            y = (0.05 + NOTE * line) / height
            picture.text(MARGIN / WIDTH, y, text, size=WORD, color=ink.SOFT, va="bottom")
        ink.save(picture, path)


def _panels(record: Mapping[str, Any]) -> list[_Panel]:
    arms = list(record["arms"].values())
    behaviour = str(record["behaviour"])
    # What is no word is a pattern.
    pattern = ("share of texts", f"that match {behaviour.removeprefix('regex:')}")
    found = [arm["behaviour"] for arm in arms]
    panels = [_measured(*WORDS.get(behaviour, pattern), found, (0.0, 1.0))]
    texts = list(arms[0]["cross_entropy"])
    stems = [Path(name).stem for name in texts]
    for name, stem in zip(texts, stems, strict=True):
        called = stem if stems.count(stem) == 1 else name
        found = [arm["cross_entropy"][name] for arm in arms]
        panels.append(_measured("cross-entropy, nats a token", called, found))
    on = [
        [arm["activation"][kind]["prompts"]["pre_activation"] for arm in arms] for kind in FEATURES
    ]
    panels.append(_Panel(*ON, on, [None] * len(arms)))
    return panels


def _measured(
    title: str,
    below: str,
    found: Sequence[Mapping[str, Any]],
    within: tuple[float, float] = (-math.inf, math.inf),
) -> _Panel:
    means, ends = ([one[key] for one in found] for key in ("mean", "interval"))
    return _Panel(title, below, [means], ends, within)


def _training(record: Mapping[str, Any]) -> str:
    """What the penalty weighs, or how far a rollout is steered; seed and steps."""
    if "lambda" in record:
        said = f"penalty weighed by lambda {record['lambda']:.3g}"
    else:
        said = f"steered: {record['feature']} at {record['strength']:g} times its maximum"
    return f"{said}; {record['steps']} steps, seed {record['seed']}"


def _draw(axes: Axes, panel: _Panel, names: Sequence[str] | None) -> None:
    filled, *hollow = panel.values
    for row, (value, ends) in enumerate(zip(filled, panel.intervals, strict=True)):
        colour = _colour(row)
        if ends is not None:
            axes.plot(ends, (row, row), color=colour, lw=1.0, zorder=2)
        axes.plot([value], [row], "o", color=colour, ms=3.5, zorder=4, clip_on=False)
        for values in hollow:
            axes.plot(
                [values[row]], [row], "o", color=colour, ms=3.5, mfc="white", mew=0.8, zorder=3,
                clip_on=False,
            )  # fmt: skip
    axes.axvline(filled[0], color=ink.LINE, lw=0.7, zorder=1)
    low, high = axes.get_xlim()
    least, most = panel.within
    if most - least < math.inf and max(filled) - min(filled) < ROOM:
        low, high = low - ROOM, high + ROOM
    axes.set_xlim(max(least, low), min(most, high))
    rows = len(filled)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_yticks(range(rows), names or [""] * rows)
    axes.tick_params(labelsize=WORD, length=2, width=0.6, colors=ink.DARK)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _colour(row: int) -> str:
    """The kept model is the third: before, without the penalty, with it, the random one."""
    return ink.COLOURS[SUPPORTS] if row == 2 else ink.DARK

"""What training did, beside its controls, as a figure: behaviour, cross-entropy, features."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from circuits.render import ink
from circuits.render.words import SUPPORTS

WIDTH, ROW, TOP, FOOT, NOTE = 6.75, 0.2, 0.3, 0.3, 0.16  # in
GAP, MARGIN = 0.3, 0.1  # in
WORD = 6.5  # points
WORDS = {
    "cjk": "share of tokens written in CJK",
    "repetition": "share of 4-grams that repeat",
}
SAID = (
    "dots: means; bars: 95% intervals over prompts or texts (none for pre-activations); "
    "grey line: before training; blue: the model that was kept"
)


def tune_figure(record: Mapping[str, Any], path: Path) -> None:
    """Write a record of `tune` or `reinforce`: a row for each model, a panel for each measure.

    A note under the panels says what is drawn: means, their 95 % intervals over prompts and over
    texts, the model before training as a line, the kept model in blue.

    Raises `ValueError` for another suffix.
    """
    ink.checked_suffix(path)
    arms = record["arms"]
    panels = _panels(record)
    with ink.fixed_style():
        left = MARGIN + max(ink.measure(name, WORD) for name in arms) + 0.1
        foot = FOOT + NOTE
        height = TOP + ROW * len(arms) + foot
        width = (WIDTH - left - MARGIN - GAP * (len(panels) - 1)) / len(panels)
        picture = ink.blank(WIDTH, height)
        for number, (title, values) in enumerate(panels):
            x = left + number * (width + GAP)
            axes = picture.add_axes(
                (x / WIDTH, foot / height, width / WIDTH, ROW * len(arms) / height)
            )
            _draw(axes, title, values, list(arms) if number == 0 else None, width)
        picture.text(MARGIN / WIDTH, 0.06 / height, SAID, size=WORD, color=ink.SOFT, va="bottom")
        ink.save(picture, path)


def _panels(
    record: Mapping[str, Any],
) -> list[tuple[str, list[tuple[float, Sequence[float] | None]]]]:
    arms = list(record["arms"].values())
    behaviour = WORDS.get(record["behaviour"]) or str(record["behaviour"])
    panels = [(behaviour, [_value(arm["behaviour"]) for arm in arms])]
    for name in arms[0]["cross_entropy"]:
        values = [_value(arm["cross_entropy"][name]) for arm in arms]
        panels.append((f"nats a token, {name}", values))
    on = [arm["activation"]["chosen features"]["prompts"]["pre_activation"] for arm in arms]
    panels.append(("pre-activation of the features, on the prompts", [(v, None) for v in on]))
    return panels


def _value(found: Mapping[str, Any]) -> tuple[float, Sequence[float] | None]:
    return found["mean"], found["interval"]


def _draw(
    axes: Axes,
    title: str,
    values: Sequence[tuple[float, Sequence[float] | None]],
    names: Sequence[str] | None,
    width: float,
) -> None:
    for row, (value, ends) in enumerate(values):
        # The kept model is the third: before, without the penalty, with it, the random one.
        colour = ink.COLOURS[SUPPORTS] if row == 2 else ink.DARK
        if ends is not None:
            axes.plot(ends, (row, row), color=colour, lw=1.0, zorder=2)
        axes.plot([value], [row], "o", color=colour, ms=3.5, zorder=3)
    axes.axvline(values[0][0], color=ink.LINE, lw=0.7, zorder=1)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_yticks(range(len(values)), names or [""] * len(values))
    axes.tick_params(labelsize=WORD, length=2, width=0.6, colors=ink.DARK)
    axes.tick_params(axis="y", length=0)
    axes.locator_params(axis="x", nbins=4)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    lines = ink.fold(title, WORD, width + GAP / 2, 2)
    axes.set_title("\n".join(lines), size=WORD, color=ink.SOFT, loc="left", pad=3)

"""A feature card on the terminal, its examples lined up at the token each one is about."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from circuits.render.words import cells, readable
from hooked_qwen.percents import percent

WIDTH = 96
"Cells that a card takes at most."
SIDE = 34
"Cells for what stands before an example's own token, and for what comes after."
PEAK = 16
FAINTEST = 0.02
SHADES = ("#fdf3d0", "#fbe2a0", "#f7cb68", "#efae34", "#e08e0b")


def card_view(card: Mapping[str, Any]) -> RenderableType:
    """The card as something for rich to print; it fits a line of 100."""
    parts: list[RenderableType] = [
        Text.assemble((card["feature"], "bold"), "  ", readable(card["label"]), overflow="fold"),
        Text(_figures(card), style="dim"),
        *(Text(line, style="dim") for line in label_lines(card)),
        _tokens(card),
    ]
    for title, key in (("Top examples", "examples"), ("Sampled where active", "sampled")):
        if card[key]:
            parts += [Text(f"\n{title}", style="bold"), _examples(card, card[key])]
    titles = {
        "decoder": "Nearest by decoder",
        "encoder": "Nearest by encoder",
        "layers": "In other layers, by decoder",
    }
    for key, title in titles.items():
        if card["nearest"][key]:
            parts += [Text(f"\n{title}", style="bold"), _neighbours(card["nearest"][key])]
    return Group(*parts)


def label_lines(card: Mapping[str, Any]) -> list[str]:
    """Who named a feature, and how well a judge tells by the name where it is on."""
    lines = [f"named by {card['label_by']}"] if "label_by" in card else []
    scores = card.get("scores") or {}
    for kind in ("detection", "fuzzing"):
        found = scores.get(kind)
        if not found or found["balanced_accuracy"] is None:
            continue
        controls = ", ".join(
            f"{name} {value:.2f}" for name, value in found["controls"].items() if value is not None
        )
        ends = "{:.2f} to {:.2f}".format(*found["interval"])
        lines.append(
            f"{kind} {found['balanced_accuracy']:.2f} ({ends}); by controls: {controls}; judged by "
            f"{scores['judge']}"
        )
    return lines


def _figures(card: Mapping[str, Any]) -> str:
    largest = card["max_activation"]
    seen = f"of {card['tokens_seen']:,} tokens"
    if largest is None:
        return f"never active on any {seen}"
    return f"active on {percent(card['density'])} {seen}; largest activation {largest:.3g}"


def _tokens(card: Mapping[str, Any]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(max_width=WIDTH - 14)
    for word, key in (("promotes", "promoted"), ("suppresses", "suppressed")):
        pairs = [f"{readable(token).strip()} {score:+.2f}" for token, score in card[key]]
        table.add_row(Text(word, style="bold"), Text("   ".join(pairs)))
    return table


def _examples(card: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]) -> Padding:
    """One line each: activation, what stands before, the token itself, what comes after."""
    table = Table.grid(padding=(0, 1))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True, min_width=SIDE)
    table.add_column(no_wrap=True, max_width=PEAK)
    table.add_column(no_wrap=True)
    for example in examples:
        peak, tokens = example["peak"], [readable(t) for t in example["tokens"]]
        shaded = [
            Text(token, _shade(value / card["max_activation"]))
            for token, value in zip(tokens, example["values"], strict=True)
        ]
        before = _fitting(reversed(shaded[:peak]))
        before = [Text("…"), *before[::-1]] if len(before) < peak else before[::-1]
        after = _fitting(shaded[peak + 1 :])
        after = [*after, Text("…")] if peak + 1 + len(after) < len(tokens) else after
        own = Text(tokens[peak].strip(), shaded[peak].style, overflow="ellipsis")
        own.stylize("bold underline")
        activation = f"{example['values'][peak]:.3g}"
        table.add_row(activation, Text.assemble(*before), own, Text.assemble(*after))
    return Padding(table, (0, 0, 0, 2))


def _shade(share: float) -> str:
    """Ground of a token that is at `share` of the feature's largest activation."""
    depth = min(len(SHADES) - 1, int(len(SHADES) * share))
    return f"black on {SHADES[depth]}" if share > FAINTEST else ""


def _fitting(tokens: Iterable[Text]) -> list[Text]:
    """The first tokens, as many as fit beside an example's own."""
    kept, room = [], SIDE - 1
    for token in tokens:
        room -= cells(token.plain)
        if room < 0:
            break
        kept.append(token)
    return kept


def _neighbours(rows: Sequence[Mapping[str, Any]]) -> Padding:
    table = Table.grid(padding=(0, 2))
    for row in rows:
        label = Text(readable(row["label"]), overflow="ellipsis", no_wrap=True)
        table.add_row(f"{row['cosine']:+.2f}", row["feature"], label)
    return Padding(table, (0, 0, 0, 2))

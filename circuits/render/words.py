"""What a picture says in words: labels, readable tokens, supports or opposes.

Width is counted in cells, as in a terminal: a Latin letter takes one, a CJK character two.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any

from circuits.graph import Node

SUPPORTS, OPPOSES, NEUTRAL = "supports", "opposes", "neutral"
VISIBLE = str.maketrans({"\n": "⏎", "\t": "⇥", "\r": "␍"})


def support(value: float | None) -> float | None:
    """How much a node or edge helps the answer: the effect of patching it, sign flipped.

    Units of the metric; positive means that patching it away lowers the metric.
    """
    return None if value is None else 0.0 - float(value)


def stance(value: float | None) -> str:
    """`supports`, `opposes` or `neutral` for a support, as `support` returns it."""
    if not value:
        return NEUTRAL
    return SUPPORTS if value > 0 else OPPOSES


def readable(token: str) -> str:
    """A token with its line breaks and tabs made visible; leading spaces stay."""
    return token.translate(VISIBLE)


def caption(node: Node, data: Mapping[str, Any]) -> str:
    """The text that names a node in a picture, where its band already tells the site."""
    label = data.get("label")
    if label and node.kind != "logit":
        return readable(str(label))
    if node.kind == "logit":
        return f"“{readable(str(node.feature))}”"
    if node.kind == "token":
        return readable(str(data.get("token") or "token"))
    return "error" if node.kind == "error" else f"#{node.feature}"


def cells(text: str) -> int:
    """Width of `text` in cells; marks that combine with the letter before take none."""
    return sum(_cells(character) for character in text)


def shorten(text: str, limit: int) -> str:
    """`text` cut to `limit` cells, the last of them an ellipsis when something was cut."""
    if cells(text) <= limit:
        return text
    kept, room = "", limit - 1
    for character in text:
        room -= _cells(character)
        if room < 0:
            break
        kept += character
    return f"{kept.rstrip()}…"


def wrap(text: str, limit: int, lines: int) -> list[str]:
    """`text` broken at spaces into at most `lines` lines of `limit` cells, the last one cut."""
    words, done, line = text.split(), [], ""
    for index, word in enumerate(words):
        longer = f"{line} {word}" if line else word
        if not line or cells(longer) <= limit:
            line = longer
            continue
        if len(done) == lines - 1:
            line = " ".join([line, *words[index:]])
            break
        done.append(shorten(line, limit))
        line = word
    return [*done, shorten(line, limit)]


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

"""Short automatic names of features, by one rule, for graph, figure, tables and pages alike.

A name says where a feature fires and what it promotes: `keys, cabinets… → are`.

    left    the tokens that most of its strongest examples peak on, those of equally many in the
            order of activation; two where both fit, `…` where there are others
    right   the token that it promotes most

Tokens that differ in capitals or in one space before them are one token. A token is written
without the space that begins a word; other white space is visible. A name takes at most `WIDEST`
cells (a CJK character takes two). A feature seen on text without firing there is `inactive`; one
that no text was looked at for is named by the two tokens that it promotes most: `→ are, were`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from circuits.render.words import cells, shortened, token_name

WIDEST = 24
RIGHT = 9
"Cells of the promoted token, beside what a feature fires on."
ARROW = "→ "
INACTIVE = "inactive"


def short_name(peaks: Sequence[str] | None, promoted: Sequence[str]) -> str:
    """The name of a feature from the tokens that its strongest examples peak on, strongest
    first (None: no text was looked at), and the tokens that it promotes, most first.
    """
    promotes = _distinct(promoted)
    if peaks is None:
        return ARROW + _listed(promotes[:2], WIDEST - cells(ARROW), others=False)
    fires = _by_frequency(peaks)
    right = f" {ARROW}{shortened(promotes[0], RIGHT)}" if promotes else ""
    left = _listed(fires, WIDEST - cells(right), others=True) if fires else INACTIVE
    return left + right


def name_of_card(card: Mapping[str, Any]) -> str:
    """The name of the feature that a card is about."""
    peaks = [example["tokens"][example["peak"]] for example in card["examples"]]
    return short_name(peaks, [token for token, _ in card["promoted"]])


def _by_frequency(peaks: Sequence[str]) -> list[str]:
    counts: dict[str, int] = {}
    for token in peaks:
        counts[_key(token)] = counts.get(_key(token), 0) + 1
    # Sorting is stable: equally frequent ones stay in the order of activation.
    return sorted(_distinct(peaks), key=lambda name: -counts[_key(name)])


def _distinct(tokens: Sequence[str]) -> list[str]:
    """Names of the tokens, each once, as it is first written."""
    found: dict[str, str] = {}
    for token in tokens:
        found.setdefault(_key(token), token_name(token))
    return list(found.values())


def _key(token: str) -> str:
    return token_name(token).casefold()


def _listed(names: Sequence[str], room: int, *, others: bool) -> str:
    """The first name, and the second where it fits whole; `…` for more, where `others` count."""
    if not names:
        return "?"
    for count in (2, 1):
        text = ", ".join(names[:count])
        if others and len(names) > count:
            text += "…"
        if cells(text) <= room:
            return text
    return shortened(names[0], room)

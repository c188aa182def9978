"""What a picture says in words: labels, readable tokens, supports or opposes.

Width is counted in cells, as in a terminal: a Latin letter takes one, a CJK character two.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from circuits.graph import Node
from hooked_qwen.notices import counted as counted

SUPPORTS, OPPOSES, NEUTRAL = "supports", "opposes", "neutral"
# Control characters have pictures of their own; what reorders or breaks a line is spelled out.
PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
UNSEEN = (*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029)
SPELLED = {code: f"‹U+{code:04X}›" for code in UNSEEN}
VISIBLE = PICTURES | SPELLED | str.maketrans({"\n": "⏎", "\t": "⇥"})


def support(value: SupportsFloat | None, meta: Mapping[str, Any]) -> float | None:
    """How much a node or edge helps the answer: the effect of patching it, sign flipped.

    Units of the metric; positive means that patching it away lowers the metric, or raises it where
    `meta` says that it is a divergence from the clean run.
    """
    if value is None:
        return None
    return float(value) if meta.get("metric") == "kl" else 0.0 - float(value)


def acts_on_target(meta: Mapping[str, Any]) -> bool:
    """Whether edge weights are in units of the target's pre-activation, not of the metric."""
    return "pre-activation" in str(meta.get("edge_units") or "")


def edge_support(weight: SupportsFloat, meta: Mapping[str, Any]) -> float:
    """The signed number that a picture shows for an edge.

    In units of the metric it is a `support`; in those of the target's pre-activation it is the
    weight as it is, positive where the source raises its target.
    """
    found = weight if acts_on_target(meta) else support(weight, meta)
    return float(found or 0.0)


def stance(value: float | None) -> str:
    """`supports`, `opposes` or `neutral` for a support, as `support` returns it."""
    if not value:
        return NEUTRAL
    return SUPPORTS if value > 0 else OPPOSES


def readable(token: str) -> str:
    """A token with every character that would move, break or reorder a line made visible."""
    return token.translate(VISIBLE)


def caption(node: Node, data: Mapping[str, Any]) -> str:
    """The text that names a node in a picture, where its band already tells the site."""
    label = data.get("label")
    if label and (node.kind != "logit" or node.feature == "answer"):
        return readable(str(label))
    if node.kind == "logit":
        return f"“{readable(str(node.feature))}”"
    if node.kind == "token":
        return readable(str(data.get("token") or "token"))
    return "error" if node.kind == "error" else f"#{node.feature}"


OF_ANSWERS = ("logit-difference", "log-probability")
"Metrics that are of the answers' tokens."
ROWS = {
    "circuit": "strongest nodes",
    "circuit, no attn or mlp errors": "strongest, no attn or mlp errors",
    "circuit without errors": "strongest features",
}


def row_name(name: str) -> str:
    """What a row of a verification is called where it is read: a graph is connected, rows are not.

    `verification.json` says circuit of the n strongest nodes of the ranking.
    """
    return ROWS.get(name, name)


def shares_in_words(shares: Sequence[Sequence[Any]], others: int) -> str:
    """Tokens with their shares: `“ are” 52%, “ is” 48% and 3 more`; a lone one without."""
    if len(shares) == 1 and not others:
        return f"“{readable(str(shares[0][0]))}”"
    named = ", ".join(f"“{readable(str(token))}” {share:.0%}" for token, share in shares)
    return named + (f" and {others:,} more" if others else "")


def answers_in_words(meta: Mapping[str, Any]) -> str | None:
    """Which tokens a graph's metric is of; None where it is of none or all, or is not said."""
    answers = meta.get("answers")
    if not answers or not answers["tokens"] or meta.get("metric") not in OF_ANSWERS:
        return None
    whose = {"model": "the model's own: ", "both": "some of them the model's own: "}
    named = shares_in_words(answers["tokens"], answers["others"])
    of_several = ""
    if n := answers["of_several_tokens"]:
        of_several = f" (of several tokens in {counted(n, 'prompt')}: the first that differs)"
    return whose.get(answers["of"], "") + named + of_several


def cells(text: str) -> int:
    """Width of `text` in cells; marks that combine with the letter before take none."""
    return sum(_cells(character) for character in text)


def _cells(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

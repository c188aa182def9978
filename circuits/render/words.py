"""What a picture says in words: labels, readable tokens, supports or opposes.

Width is counted in cells, as in a terminal: a Latin letter takes one, a CJK character two.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from circuits.graph import Node
from hooked_qwen.notices import counted as counted
from hooked_qwen.percents import percent

SUPPORTS, OPPOSES, NEUTRAL = "supports", "opposes", "neutral"
# Control characters have pictures of their own; what reorders or breaks a line is spelled out.
PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: 0x2421}
UNSEEN = (
    *range(0x80, 0xA1),
    0xAD,
    0x200B,
    0x200E,
    0x200F,
    0xFEFF,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0x2028,
    0x2029,
)
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


def token_name(token: str) -> str:
    """A token inside a name: without the space that begins a word, other white space visible."""
    plain = token[1:] if token.startswith(" ") and token.strip() else token
    middle = plain.strip(" ")
    start = plain.index(middle)
    end = len(plain) - start - len(middle)
    return readable("␣" * start + middle + "␣" * end) if middle else "␣" * len(plain)


def shortened(text: str, room: int) -> str:
    """`text` in at most `room` cells, its end replaced by `…` where it is longer."""
    if cells(text) <= room:
        return text
    kept = text
    while kept and cells(kept) > room - 1:
        kept = kept[:-1]
    return kept.rstrip() + "…"


def caption(node: Node, data: Mapping[str, Any]) -> str:
    """The text that names a node in a picture, where its band already tells the site."""
    label = data.get("label")
    if node.kind == "logit":
        return _output(str(label)) if label else token_name(str(node.feature))
    if label:
        return readable(str(label))
    if node.kind == "token":
        return readable(str(data.get("token") or "token"))
    return "error" if node.kind == "error" else f"#{node.feature}"


def _output(label: str) -> str:
    """An output's label; earlier versions quoted its tokens and gave the share of each."""
    if old := re.fullmatch(r"“.*( − (wrong|mean))", label, re.DOTALL):
        others = re.search(r" and (\d[\d,]*) more − ", old[0])
        tokens = [((token,), ()) for token in re.findall("“(.*?)”", old[0])]
        return answers_named(tokens, int(others[1].replace(",", "")) if others else 0)
    return readable(label)


WIDEST_OUTPUT = 24
"Cells of what the output is called in a picture."


def answers_named(pairs: Sequence[Sequence[Sequence[str]]], others: int) -> str:
    """What a graph explains, short: the right token less the wrong one, or the right one.

    Pairs are of right tokens and wrong ones, those of most prompts first; as many are named as
    fit, at least one.
    """
    names = list(dict.fromkeys(pair_name(*pair) for pair in pairs))
    for shown in range(len(names), 0, -1):
        left = len(names) - shown + others
        text = ", ".join(names[:shown]) + (f", … {left:,} more" if left else "")
        if cells(text) <= WIDEST_OUTPUT or shown == 1:
            return text
    return "answer"


def pair_name(right: Sequence[str], wrong: Sequence[str]) -> str:
    """Right less wrong, up to three tokens of each; `are` alone where there is no wrong answer."""
    return " − ".join(filter(None, map(tokens_named, (right, wrong))))


def tokens_named(tokens: Sequence[str]) -> str:
    """Up to three tokens inside a name: `are/were`."""
    names = [token_name(str(token)) for token in tokens]
    return "/".join(names[:3]) + ("/…" if len(names) > 3 else "")


OF_ANSWERS = ("logit-difference", "log-probability", "probability-difference")
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


def _shares_in_words(shares: Sequence[Sequence[Any]], others: int) -> str:
    """Tokens with their shares: `“ are” 52%, “ is” 48% and 3 more`; a lone one without."""
    if len(shares) == 1 and not others:
        return f"“{readable(str(shares[0][0]))}”"
    named = ", ".join(f"“{readable(str(token))}” {percent(share)}" for token, share in shares)
    return named + (f" and {others:,} more" if others else "")


PAIRS_TOLD = 4


def _pairs_in_words(pairs: Sequence[Sequence[Any]], others: int) -> str:
    """Right and wrong tokens with the share of prompts that they are of; a lone pair without."""

    def quoted(tokens: Sequence[str]) -> str:
        return "/".join(f"“{readable(str(token))}”" for token in tokens)

    told = [
        " − ".join(filter(None, (quoted(right), quoted(wrong))))
        + (f" {percent(share)}" if len(pairs) > 1 else "")
        for right, wrong, share in pairs[:PAIRS_TOLD]
    ]
    left = len(pairs) - len(told) + others
    return ", ".join(told) + (f" and {counted(left, 'more pair')}" if left else "")


def answers_in_words(meta: Mapping[str, Any]) -> str | None:
    """Which tokens a graph's metric is of; None where it is of none or all, or is not said.

    Those of the prompts in pairs of right and wrong; the model's own each with its share.
    """
    answers = meta.get("answers")
    if not answers or not answers["tokens"] or meta.get("metric") not in OF_ANSWERS:
        return None
    whose = {"model": "the model's own: ", "both": "some of them the model's own: "}
    pairs = answers.get("pairs") if answers["of"] == "prompts" else None
    if pairs:
        named = _pairs_in_words(pairs, answers["other_pairs"])
    else:
        named = _shares_in_words(answers["tokens"], answers["others"])
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

"""What a text shows that is not wanted, as a number from 0 to 1, from its tokens.

A behaviour is a function of a text's pieces: the texts of its tokens, those that hold parts of one
character together. `BEHAVIOURS` has two, `regex:PATTERN` is a third; any other function of pieces
can be passed.

    cjk           share of pieces with a Chinese, Japanese or Korean character
    repetition    1 - distinct runs of four pieces / all of them (seq-rep-4, arXiv:1908.04319)
    regex         1 where a pattern matches the text, else 0
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from hooked_qwen.tokens import REPLACEMENT, encode
from saes.scope.text_scores import Scorer, by_regex, repetition

Behaviour = Callable[[Sequence[str]], float]
CJK = (
    (0x1100, 0x11FF),  # Hangul letters
    (0x2E80, 0x303F),  # radicals, punctuation
    (0x3040, 0x30FF),  # kana
    (0x3100, 0x318F),
    (0x3400, 0x4DBF),  # ideographs
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7AF),  # Hangul syllables
    (0xF900, 0xFAFF),
    (0xFF00, 0xFFEF),  # full width
    (0x20000, 0x3FFFF),
)


def pieces_of(tokenizer: Any, tokens: Sequence[int]) -> list[str]:
    """The texts of some tokens, special ones left out; tokens of one character together."""
    found, held = [], []
    special = set(tokenizer.all_special_ids)
    for token in tokens:
        if token in special:
            continue
        held.append(token)
        text = tokenizer.decode(held)
        if REPLACEMENT not in text:
            found.append(text)
            held = []
    return [*found, tokenizer.decode(held)] if held else found


def cjk(pieces: Sequence[str]) -> float:
    """Share of pieces with a Chinese, Japanese or Korean character, punctuation included."""
    return sum(map(_has_cjk, pieces)) / len(pieces) if pieces else 0.0


def _has_cjk(piece: str) -> bool:
    return any(low <= ord(c) <= high for c in piece for low, high in CJK)


BEHAVIOURS: Mapping[str, Behaviour] = {"cjk": cjk, "repetition": repetition}
SAID = {
    "cjk": "share of tokens with a Chinese, Japanese or Korean character",
    "repetition": "share of runs of four tokens that came before",
}


def behaviour_called(name: str) -> Behaviour:
    """The behaviour of that name; raises `ValueError` listing those there are."""
    kind, _, pattern = name.partition(":")
    if kind == "regex" and pattern:
        matches = by_regex(pattern).of
        return lambda pieces: float(matches(["".join(pieces)]))
    if name not in BEHAVIOURS:
        raise ValueError(
            f"no behaviour is called {name!r}: expected one of {', '.join(BEHAVIOURS)}, or "
            "regex:PATTERN"
        )
    return BEHAVIOURS[name]


def by_behaviour(name: str, tokenizer: Any) -> Scorer:
    """The behaviour of that name as a score of texts, which are split into tokens again."""
    behaviour = behaviour_called(name)

    def of(texts: Sequence[str]) -> torch.Tensor:
        found = [behaviour(pieces_of(tokenizer, encode(tokenizer, text))) for text in texts]
        return torch.tensor(found, dtype=torch.float64)

    said = SAID.get(name, f"how much a text has of {name}, by its tokens")
    return Scorer(name=f"behaviour:{name}", said=said, of=of)

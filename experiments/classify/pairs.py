"""Paragraphs of a manual in two languages, paired: the same paragraph is never in two parts.

A translation keeps commands, paths and names in Latin letters. Of two chapters, paragraphs are
aligned in their order so that the sum of

    share of the different Latin words of both that both have, less `LEAST`

is the largest (Needleman & Wunsch 1970, skipping costs nothing); pairs below `LEAST` are no pairs.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

WORD = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*[A-Za-z0-9]|\d+")
LEAST = 0.3
"Share of Latin words that the two of a pair have in common, at least."
LETTERS = 40
"Characters of an English paragraph, at least: the others are of a few words."


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One paragraph in both languages."""

    chapter: str
    place: int
    "among the chapter's pairs"
    en: str
    zh: str


def pairs_of(english: Path, chinese: Path, chapters: Sequence[str]) -> list[Pair]:
    """The pairs of some chapters, in their order."""
    found = []
    for chapter in chapters:
        en, zh = (_paragraphs(path, chapter) for path in (english, chinese))
        some = [(i, j) for i, j in aligned(en, zh) if len(en[i]) >= LETTERS]
        found += [
            Pair(chapter=chapter, place=place, en=en[i], zh=zh[j])
            for place, (i, j) in enumerate(some)
        ]
    return found


def _paragraphs(path: Path, chapter: str) -> list[str]:
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [row["text"] for row in rows if row["chapter"] == chapter]


def aligned(en: Sequence[str], zh: Sequence[str]) -> list[tuple[int, int]]:
    """Numbers of paragraphs that belong together, both rising."""
    gain = alike(en, zh) - LEAST
    best = np.zeros((len(en) + 1, len(zh) + 1))
    for i in range(1, len(en) + 1):
        for j in range(1, len(zh) + 1):
            both = best[i - 1, j - 1] + gain[i - 1, j - 1]
            best[i, j] = max(both, best[i - 1, j], best[i, j - 1])
    found, i, j = [], len(en), len(zh)
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            found.append((i, j))
    return found[::-1]


def alike(en: Sequence[str], zh: Sequence[str]) -> NDArray[np.float64]:
    """Of every two paragraphs the share of Latin words in common; 0 where neither has one.

    English words that no Chinese paragraph has were translated, and do not count.
    """
    words = [[set(WORD.findall(text)) for text in texts] for texts in (en, zh)]
    kept = set().union(*words[1])
    rows = [row & kept for row in words[0]]
    return np.array([[len(a & b) / max(1, len(a | b)) for b in words[1]] for a in rows])

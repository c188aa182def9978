"""Texts with an intended and a spurious label, and the sets of them that SHIFT needs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class LabelledText:
    """A text of one of two intended classes and one of two spurious classes."""

    text: str
    label: int
    "0 or 1: which of the two intended classes"
    spurious: int
    "0 or 1: which of the two spurious classes"


@dataclass(frozen=True, kw_only=True)
class ShiftData:
    """Texts in four sets, no text in two of them."""

    name: str
    "such as `biographies`"
    label: str
    "name of the intended signal, such as `profession`"
    labels: tuple[str, str]
    "names of its classes 0 and 1"
    spurious: str
    "name of the spurious signal, such as `gender`"
    spurious_labels: tuple[str, str]
    ambiguous: tuple[LabelledText, ...]
    "label and spurious class are the same: what a classifier is trained on"
    balanced: tuple[LabelledText, ...]
    "the four groups of one size: what it is tested on"
    balanced_train: tuple[LabelledText, ...]
    "the four groups of one size: what only the ceiling is trained on"
    spurious_only: tuple[LabelledText, ...]
    "texts of other classes, both spurious classes of one size; their label means nothing and is 0"
    words: tuple[tuple[str, ...], ...]
    "words that tell the spurious class, a tuple for each kind of cue"
    cues: tuple[str, ...] = ()
    "what each kind of cue is called"
    notes: tuple[str, ...] = ()
    "what was chosen or left out on the way, one line each"

    def __post_init__(self) -> None:
        if len(self.cues) != len(self.words):
            raise ValueError(f"{len(self.words)} kinds of words need as many names: {self.cues}")


def without_words(text: str, words: Sequence[str]) -> str:
    """The text with every one of `words` deleted, and the gaps closed.

    Whole words: one with a capital as it is written, any other in either case. A mark that ends
    sentences is no word: a full stop takes its place.
    """
    if not words:
        return text
    left = _any_of(tuple(words)).sub(lambda found: "." if found[0] in "!?" else "", text)
    left = re.sub(r"\s+", " ", left)
    return re.sub(r" +(?=[.,;:!?])|^[ ,.;:]+|,(?= *[.!?])", "", left).strip()


def only_words(text: str, words: Sequence[str]) -> str:
    """Those of `words` that the text holds, in its order."""
    return " ".join(_any_of(tuple(words)).findall(text)) if words else ""


@cache
def _any_of(words: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the words where it is no part of a longer one; a mark may touch a word.

    The edges are looked at once for all, not once for each of hundreds of names.
    """
    longest_first = [re.escape(word) for word in sorted(words, key=len, reverse=True)]
    as_written = "|".join(word for word in longest_first if word != word.lower())
    either_case = "|".join(word for word in longest_first if word == word.lower())
    ways = "|".join(filter(None, (as_written, either_case and f"(?i:{either_case})")))
    return re.compile(rf"(?:(?<!\w)|(?=\W))(?:{ways})(?:(?!\w)|(?<=\W))")

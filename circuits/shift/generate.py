"""Draw the four sets of `ShiftData` from something that writes texts."""

import random
import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypedDict

from circuits.shift.labelled import LabelledText

Half = Literal["train", "test"]
Write = Callable[[random.Random, str, int, Half], str]
"Writes a text of a named class and a spurious class 0 or 1, with names from one half."
SHORTEST, LONGEST = 25, 45
"Words and marks of a text, which is about its tokens."
TRIES = 2000
BRACKETS = r"\[([^/\]]*)/([^\]]*)\]"


class Sets(TypedDict):
    """The sets of `ShiftData`."""

    ambiguous: tuple[LabelledText, ...]
    balanced: tuple[LabelledText, ...]
    balanced_train: tuple[LabelledText, ...]
    spurious_only: tuple[LabelledText, ...]


def draw_sets(
    name: str, write: Write, classes: Sequence[str], others: Sequence[str], n: int, seed: int
) -> Sets:
    """The four sets, `n` texts each.

    The same arguments give the same texts. Raises `ValueError` where `n` is no multiple of 4,
    or where there are not as many different texts.
    """
    if n < 4 or n % 4:
        raise ValueError(f"{n} texts cannot be four groups of one size: give a multiple of 4")
    agreeing = [(classes[i], i, i) for i in range(2)]
    crossed = [(classes[i], i, j) for i in range(2) for j in range(2)]
    elsewhere = [(other, 0, j) for other in others for j in range(2)]
    seen: set[str] = set()

    def drawn(part: str, groups: Sequence[tuple[str, int, int]], half: Half):
        rng = random.Random(zlib.crc32(f"{name} {' '.join(classes)} {part} {seed}".encode()))
        texts = [
            LabelledText(_unseen(rng, write, kind, spurious, half, seen), label, spurious)
            for kind, label, spurious in (groups[i % len(groups)] for i in range(n))
        ]
        rng.shuffle(texts)
        return tuple(texts)

    return {
        "balanced": drawn("balanced", crossed, "test"),
        "ambiguous": drawn("ambiguous", agreeing, "train"),
        "balanced_train": drawn("balanced_train", crossed, "train"),
        "spurious_only": drawn("spurious_only", elsewhere, "train"),
    }


def _unseen(
    rng: random.Random, write: Write, kind: str, spurious: int, half: Half, seen: set[str]
) -> str:
    for _ in range(TRIES):
        text = write(rng, kind, spurious, half)
        if SHORTEST <= pieces(text) <= LONGEST and text not in seen:
            seen.add(text)
            return text
    raise ValueError(f"no further text about {kind!r} was found in {TRIES} tries: ask for fewer")


def pieces(text: str) -> int:
    """Words and punctuation marks of a text."""
    return len(re.findall(r"\w+|[^\w\s]", text))


def chosen_classes(
    known: Sequence[str], default: tuple[str, str], classes: Sequence[str] | None, of: str
) -> tuple[str, str]:
    """The two classes to tell apart; raises `ValueError` for any that is not `known`."""
    if classes is None:
        return default
    first, *more = classes
    if len(more) != 1 or first == more[0] or {first, *more} - set(known):
        raise ValueError(
            f"cannot tell apart {', '.join(map(repr, classes))}: "
            f"write two of the {of}s {', '.join(known)}"
        )
    return first, more[0]


def either(pattern: str, which: int) -> str:
    """`the [aunt/uncle]` with the first of the two for 0, the second for 1."""
    return re.sub(BRACKETS, lambda found: found[which + 1], pattern)


def alternatives(patterns: Iterable[str]) -> tuple[str, ...]:
    """All that stands in the brackets of `patterns`, in order."""
    pairs = (pair for pattern in patterns for pair in re.findall(BRACKETS, pattern))
    return tuple(dict.fromkeys(word for pair in pairs for word in pair))


def sentences(parts: Iterable[str]) -> str:
    """Each part with a capital and, where it has no mark, a full stop."""
    return " ".join(
        f"{part[0].upper()}{part[1:]}{'' if part[-1] in '.!?' else '.'}" for part in parts
    )

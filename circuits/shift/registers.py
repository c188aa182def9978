"""Messages on a topic, formal or casual: a second pair, so that nothing is made for gender alone.

Formality shows in openings, closings, contractions, wording, how the reader is addressed and
exclamation marks, each in a part of the texts, and the wording only more often than not.

The words of the bundled model carry no formality. For it the pair is profession and the region
that a person lives in (`regions`).
"""

import random
from collections.abc import Mapping, Sequence

from circuits.shift.generate import Half, chosen_classes, draw_sets, sentences
from circuits.shift.labelled import ShiftData, only_words
from circuits.shift.regions import regions
from circuits.shift.registers_english import (
    ADDRESS,
    BLANKS,
    CLASSES,
    CLOSINGS,
    CONTRACTIONS,
    MARKS,
    OPENINGS,
    OTHER,
    TOPICS,
    WORDING,
)

SHARES = {
    "openings": 0.35,
    "closings": 0.3,
    "contractions": 0.6,
    "wording": 0.75,
    "address": 0.3,
    "punctuation": 0.4,
}
"How many of the texts have each kind of cue, before those in which none shows are drawn again."
TYPICAL = 0.8
"How often a word is the one of its register, where a text has wording."


def _columns(forms: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The formal and the casual words, which stand last, in small letters: for either case."""
    return tuple(x[-2].lower() for x in forms.values()), tuple(
        x[-1].lower() for x in forms.values()
    )


CUE_WORDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "openings": OPENINGS,
    "closings": CLOSINGS,
    "contractions": _columns(CONTRACTIONS),
    "wording": _columns(WORDING),
    "address": ADDRESS,
    "punctuation": ((), MARKS[1:]),
}
"The formal and the casual words of each kind of cue."


def registers(*, classes: Sequence[str] | None, n: int, seed: int, bundled: bool) -> ShiftData:
    """Messages in English; for the bundled model, professions in two regions."""
    if bundled:
        return regions(classes=classes, n=n, seed=seed)
    labels = chosen_classes(tuple(TOPICS), CLASSES, classes, "topic")
    others = [topic for topic in TOPICS if topic not in labels]
    return ShiftData(
        name="registers",
        label="topic",
        labels=labels,
        spurious="formality",
        spurious_labels=("formal", "casual"),
        **draw_sets("registers", message, labels, others, n, seed),
        words=tuple(formal + casual for formal, casual in CUE_WORDS.values()),
        cues=tuple(CUE_WORDS),
    )


def message(rng: random.Random, topic: str, formality: int, half: Half) -> str:
    """Three to five sentences, formal for 0 and casual for 1; the half makes no difference."""
    while True:
        cues = {kind for kind, share in SHARES.items() if rng.random() < share}
        text = _message(rng, topic, formality, cues)
        if any(only_words(text, CUE_WORDS[kind][formality]) for kind in cues - {"punctuation"}):
            return text


def _message(rng: random.Random, topic: str, formality: int, cues: set[str]) -> str:
    patterns = rng.sample(TOPICS[topic], rng.choice((1, 2)))
    patterns += rng.sample(OTHER, max(rng.randint(3, 5) - len(patterns), 1))
    rng.shuffle(patterns)
    parts = [pattern.format(**_blanks(rng, cues, formality)) for pattern in patterns]
    if "address" in cues:
        parts[rng.randrange(len(parts))] += f", {rng.choice(ADDRESS[formality])}"
    if "openings" in cues:
        first = parts[0] if parts[0].startswith("I") else parts[0][0].lower() + parts[0][1:]
        parts[0] = f"{rng.choice(OPENINGS[formality])}, {first}"
    if "closings" in cues:
        parts.append(rng.choice(CLOSINGS[formality]))
    mark = MARKS[formality if "punctuation" in cues else 0]
    return sentences(part + (mark if rng.random() < TYPICAL else MARKS[0]) for part in parts)


def _blanks(rng: random.Random, cues: set[str], formality: int) -> dict[str, str]:
    """A word for each blank, of its register where the text has that cue."""
    blanks = {name: rng.choice(words) for name, words in BLANKS.items()}
    for name, forms in CONTRACTIONS.items():
        blanks[name] = forms[formality if "contractions" in cues else rng.randrange(2)]
    for name, forms in WORDING.items():
        shows = "wording" in cues and rng.random() < TYPICAL
        blanks[name] = forms[formality + 1] if shows else forms[0]
    return blanks

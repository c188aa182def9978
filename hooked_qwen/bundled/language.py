"""The bundled model's English: prompt pairs to study, and the text it was trained on.

    pairs("ioi", 100, split="train")    what a circuit is looked for on
    held_out("ioi")                     what the model's card is measured on
    documents(seed=0)                   paragraphs without end
    rounds(seed=0)                      words over and over, which the model met first

The two splits of a task share no word that varies (nouns, verbs, names, places, years). All
words of both occur in training text; held-out combinations of them never do.
"""

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import islice

from hooked_qwen.bundled import (
    agreement_sentences,
    copying_sentences,
    people_sentences,
    recall_sentences,
    story,
)
from hooked_qwen.bundled.holdout import held_pairs, shares
from hooked_qwen.bundled.lexicon import words
from hooked_qwen.families import PromptPair, Split, Task, Template

__all__ = ["TASKS", "PromptPair", "Split", "documents", "held_out", "pairs", "rounds"]

TASKS: dict[str, Task] = {
    name: Task(name=name, templates=templates, description=description)
    for name, templates, description in (
        (
            "agreement_simple",
            agreement_sentences.simple,
            "a verb agrees with the noun before it: The keys -> are / open",
        ),
        (
            "agreement_nounpp",
            agreement_sentences.nounpp,
            "agreement past a phrase: The key near the cabinets -> is",
        ),
        (
            "agreement_rc",
            agreement_sentences.across_clause,
            "agreement past a relative clause: The keys that the farmer likes -> are",
        ),
        (
            "agreement_within_rc",
            agreement_sentences.within_clause,
            "agreement inside a relative clause: The keys that the farmer -> likes",
        ),
        (
            "ioi",
            people_sentences.ioi,
            "the one who receives: When Mary and John went to the shop, "
            "John gave a book to -> Mary",
        ),
        (
            "greater_than",
            recall_sentences.greater_than,
            "a later year: The war that began in 1732 ended in -> 1745",
        ),
        (
            "pronoun",
            people_sentences.pronoun,
            "the pronoun of a name: Anna was a doctor in Velmar. One day -> she",
        ),
        (
            "profession",
            people_sentences.profession,
            "recall from a biography: Anna was a doctor. ... Anna worked as a -> doctor",
        ),
        (
            "induction",
            copying_sentences.induction,
            "repeat a sequence: The password was river stone lamp. Again: river stone -> lamp",
        ),
        (
            "capital_of",
            recall_sentences.capital_of,
            "an invented fact: The capital of Ostria is -> Brenn",
        ),
        (
            "two_step",
            recall_sentences.two_step,
            "two facts joined: The capital of the region where Jarwick lies is -> Brenn",
        ),
        ("brackets", copying_sentences.brackets, "close the right bracket: ( a [ b ] c -> )"),
    )
}


def pairs(task: str, n: int, *, split: Split, seed: int = 0) -> list[PromptPair]:
    """`n` different pairs of a task, dealt evenly over its cases, from one half of the words.

    Raises `ValueError` for an unknown task or split, or if fewer than `n` pairs exist.
    """
    _check(task)
    if split not in ("train", "test"):
        raise ValueError(f"no split is called {split!r}: choose train or test")
    templates = _templates(task, split)
    rng = random.Random(zlib.crc32(f"{task} {split} {seed}".encode()))
    chosen = []
    sizes = [len(template) for template in templates]
    for template, share in zip(templates, shares(sizes, n), strict=True):
        indices = rng.sample(range(len(template)), share)
        chosen += map(template.pair, indices)
    rng.shuffle(chosen)
    return chosen


def held_out(task: str, n: int = 300) -> list[PromptPair]:
    """About `n` pairs, from both halves of the words, that `documents` never spells out.

    Which combinations are held out is a rule (`templates.held`), the same on every machine.
    Raises `ValueError` for an unknown task.
    """
    _check(task)
    rng = random.Random(zlib.crc32(f"{task} held out".encode()))
    templates = [t for split in ("train", "test") for t in _templates(task, split)]
    each = -(-n // len(templates))
    return [pair for template in templates for pair in islice(held_pairs(rng, template), each)]


def documents(seed: int) -> Iterator[str]:
    """Paragraphs without end; the same seed gives the same ones."""
    rng = random.Random(seed)
    while True:
        yield _paragraph(rng)


def rounds(seed: int) -> Iterator[str]:
    """Rounds of words without end; the same seed gives the same ones."""
    rng = random.Random(seed)
    while True:
        yield copying_sentences.write_round(rng)


@dataclass(frozen=True)
class _Writer:
    """A kind of passage and how often a paragraph is about it."""

    weight: int | float
    write: Callable[[random.Random], str]


_WRITERS = (
    _Writer(14, agreement_sentences.write),
    _Writer(6, agreement_sentences.write_scene),
    _Writer(9, people_sentences.write_ioi),
    _Writer(8, people_sentences.write_life),
    _Writer(8, people_sentences.write_lives),
    _Writer(10, people_sentences.write_roster),
    _Writer(3, people_sentences.write_aside),
    _Writer(7, recall_sentences.write_span),
    _Writer(2, recall_sentences.write_years),
    _Writer(2, recall_sentences.write_next_year),
    _Writer(7, recall_sentences.write_capital),
    _Writer(7, recall_sentences.write_town),
    _Writer(7, recall_sentences.write_chain),
    _Writer(11, copying_sentences.write_repeat),
    _Writer(12, copying_sentences.write_recital),
    _Writer(3, copying_sentences.write_round),
    _Writer(2, copying_sentences.write_formula),
)
_CODE_SHARE = 0.1
_ON_TOPIC = 0.55
_FILLER = 0.35


def _paragraph(rng: random.Random) -> str:
    """A few passages, mostly of one kind, with narration in between; or lines of code."""
    if rng.random() < _CODE_SHARE:
        return copying_sentences.write_code(rng)
    weights = [writer.weight for writer in _WRITERS]
    topic = rng.choices(_WRITERS, weights)[0]
    parts = []
    for _ in range(rng.randint(2, 5)):
        on_topic = rng.random() < _ON_TOPIC
        parts.append((topic if on_topic else rng.choices(_WRITERS, weights)[0]).write(rng))
        if rng.random() < _FILLER:
            parts.append(story.write_filler(rng))
    if rng.random() < 0.1:
        parts.insert(0, story.write_filler(rng))
    return " ".join(parts)


def _check(task: str) -> None:
    if task not in TASKS:
        raise ValueError(f"no task is called {task!r}: choose one of {', '.join(TASKS)}")


@cache
def _templates(task: str, split: Split) -> tuple[Template, ...]:
    return TASKS[task].templates(words(split))

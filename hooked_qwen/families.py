"""Families of prompt pairs that the bundled model's language and real English share.

A family is a sentence with one blank that is filled in two ways; which words fill the others,
how often and in which order, is for a lexicon to say: `hooked_qwen.bundled.lexicon` has that of
the bundled model, `circuits.tasks.words` that of English.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, get_args

Inflected = tuple[str, ...]
"The form for one, then the form for many; what follows, such as a past, is not asked for."
Blank = TypeVar("Blank")
Split = Literal["train", "test"]
"Half of every list of words: the two halves share no content word."
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, kw_only=True)
class PromptPair:
    """A prompt, the same prompt minimally changed, and the next tokens told apart.

    `answer` is right after `clean`, `wrong` is right after `patch`.
    """

    clean: str
    patch: str
    answer: tuple[str, ...]
    wrong: tuple[str, ...]
    case: str = ""


@dataclass(frozen=True, kw_only=True)
class Template:
    """One sentence form of one case: a product of pools, one for each blank.

    Every combination builds a well-formed pair. So the number of pairs is a product, the i-th is
    built without building the others, and asking for too many fails with the exact number.
    `held_out(*values)` bars a combination from training text.
    """

    case: str
    pools: tuple[Sequence[Any], ...]
    build: Callable[..., PromptPair]
    held_out: Callable[..., bool] = lambda *_: False

    def __len__(self) -> int:
        return math.prod(len(pool) for pool in self.pools)

    def values(self, index: int) -> tuple[Any, ...]:
        """The `index`-th combination, counting like the digits of a number."""
        chosen = []
        for pool in reversed(self.pools):
            index, place = divmod(index, len(pool))
            chosen.append(pool[place])
        return tuple(reversed(chosen))

    def pair_of(self, values: Sequence[Any]) -> PromptPair:
        """The pair of one combination."""
        return replace(self.build(*values), case=self.case)

    def pair(self, index: int) -> PromptPair:
        """The pair of the `index`-th combination."""
        return self.pair_of(self.values(index))


class TooFewPairs(ValueError):
    """A family has fewer pairs than were asked for; `exist` of them."""

    def __init__(self, message: str, exist: int) -> None:
        super().__init__(message)
        self.exist = exist


@dataclass(frozen=True, kw_only=True)
class Task:
    """A kind of prompt pair; `templates` gives its sentence forms over some words."""

    name: str
    description: str
    templates: Callable[[Any], tuple[Template, ...]]
    source: str = ""


def swap(
    sentence: Callable[[Blank], str], blanks: Sequence[Blank], answers: Sequence[str]
) -> PromptPair:
    """The sentence with the first of two blanks, patched with the second; an answer for each."""
    (clean, patch), (answer, wrong) = map(sentence, blanks), answers
    return PromptPair(clean=clean, patch=patch, answer=(answer,), wrong=(wrong,))


def agree(
    sentence: Callable[[str], str], subject: Inflected, verb: Inflected, number: int
) -> PromptPair:
    """The verb takes the number of `subject` (0 for one, 1 for many), which the patch changes."""
    order = (number, 1 - number)
    return swap(sentence, [subject[i] for i in order], [f" {verb[i]}" for i in order])


def simple(subject: Inflected, verb: Inflected, number: int, adjective: str = "") -> PromptPair:
    """`The old keys` -> are."""
    before = f"The {adjective} " if adjective else "The "
    return agree(lambda noun: f"{before}{noun}", subject, verb, number)


def nounpp(
    subject: Inflected, verb: Inflected, number: int, preposition: str, other: str
) -> PromptPair:
    """`The key near the cabinets` -> is: a noun of either number stands in between."""
    return agree(lambda noun: f"The {noun} {preposition} the {other}", subject, verb, number)


def across_clause(
    subject: Inflected, verb: Inflected, number: int, other: str, inner: str
) -> PromptPair:
    """`The key that the farmers like` -> is: a whole clause stands in between."""
    return agree(lambda noun: f"The {noun} that the {other} {inner}", subject, verb, number)


def within_clause(head: str, subject: Inflected, verb: Inflected, number: int) -> PromptPair:
    """`The key that the farmers` -> like: the verb agrees with the clause's own subject."""
    return agree(lambda noun: f"The {head} that the {noun}", subject, verb, number)


def ioi(scene: str, names: tuple[str, str], receiver: int) -> PromptPair:
    """Of two names, in the order said, the one that `{again}` does not repeat receives.

    The patch repeats the other, so that its right answer is the giver's name.
    """
    receiving, giving = names[receiver], names[1 - receiver]
    return swap(
        lambda again: scene.format(*names, again=again),
        (giving, receiving),
        (f" {receiving}", f" {giving}"),
    )


def fact(question: str, places: Sequence[tuple[str, str]]) -> PromptPair:
    """A question about one thing, patched with another; each thing comes with its answer."""
    things, answers = zip(*places, strict=True)
    return swap(question.format, things, [f" {answer}" for answer in answers])

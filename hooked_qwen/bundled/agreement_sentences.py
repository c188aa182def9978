"""Subject-verb agreement: bare, past a prepositional phrase, past and inside a relative clause.

The nearest noun often has the other number, so a model that only looks one word back fails.
"""

import random
from collections.abc import Callable
from functools import cache

from hooked_qwen import families
from hooked_qwen.bundled.holdout import draw, held
from hooked_qwen.bundled.lexicon import Noun, Verb, Words, entries, words
from hooked_qwen.families import PromptPair, Template

PREPOSITIONS = ("near", "behind", "beside", "by")
NUMBERS = (0, 1)
Subject = tuple[Noun, Verb]
Maker = Callable[[Words], tuple[Template, ...]]


def simple(w: Words) -> tuple[Template, ...]:
    """`The keys` -> ` are`, or ` open`."""
    return (
        Template(
            case="subject",
            pools=(_subjects(w), NUMBERS),
            build=lambda subject, number: families.simple(subject[0], subject[1], number),
            held_out=lambda subject, number: held(adjacency(*subject)),
        ),
    )


def nounpp(w: Words) -> tuple[Template, ...]:
    """`The key near the cabinets` -> ` is`: a noun of either number stands in between."""

    def build(
        subject: Subject, number: int, preposition: str, step: int, plural: int
    ) -> PromptPair:
        other = _other(w.things, subject[0], step)
        return families.nounpp(*subject, number, preposition, other.form(plural))

    def held_out(subject: Subject, number: int, preposition: str, step: int, plural: int) -> bool:
        noun, verb = subject
        other = _other(w.things, noun, step)
        return held(f"nounpp {noun.singular} {other.singular}") or held(adjacency(other, verb))

    steps = range(1, len(w.things))
    pools = (_subjects(w), NUMBERS, PREPOSITIONS, steps, NUMBERS)
    return (Template(case="prepositional phrase", pools=pools, build=build, held_out=held_out),)


def across_clause(w: Words) -> tuple[Template, ...]:
    """`The keys that the farmer likes` -> ` are`: a whole clause stands in between."""

    def build(subject: Subject, number: int, step: int, plural: int, inner: Verb) -> PromptPair:
        other = _other(w.people, subject[0], step)
        return families.across_clause(*subject, number, other.form(plural), inner.form(plural))

    def held_out(subject: Subject, number: int, step: int, plural: int, inner: Verb) -> bool:
        return held(clause(subject[0], _other(w.people, subject[0], step)))

    steps = range(1, len(w.people))
    pools = (_subjects(w), NUMBERS, steps, NUMBERS, w.relative_verbs)
    return (Template(case="relative clause", pools=pools, build=build, held_out=held_out),)


def within_clause(w: Words) -> tuple[Template, ...]:
    """`The keys that the farmer` -> ` likes`: the verb agrees with the clause's own subject."""

    def build(head: Noun, plural: int, other: Noun, number: int, inner: Verb) -> PromptPair:
        return families.within_clause(head.form(plural), other, inner, number)

    def held_out(head: Noun, plural: int, other: Noun, number: int, inner: Verb) -> bool:
        return held(clause(head, other))

    pools = (w.things, NUMBERS, w.people, NUMBERS, w.relative_verbs)
    return (Template(case="inside the clause", pools=pools, build=build, held_out=held_out),)


def adjacency(noun: Noun, verb: Verb) -> str:
    """Hold-out key of a noun directly followed by a verb, whatever their number."""
    return f"simple {noun.singular} {verb.singular}"


def clause(head: Noun, subject: Noun) -> str:
    """Hold-out key of `the HEAD that the SUBJECT ...`."""
    return f"clause {head.singular} {subject.singular}"


def write(rng: random.Random) -> str:
    """One sentence with an agreeing verb."""
    pair = draw(rng, _template(rng.choice((simple, nounpp, nounpp, across_clause, across_clause))))
    return f"{pair.clean}{pair.answer[0]}{_tail(rng, pair.answer[0].strip())}"


def write_scene(rng: random.Random) -> str:
    """One sentence whose subject comes later, after a time or place."""
    w = words()
    while True:
        noun, verb = rng.choice(_subjects(w))
        if not held(adjacency(noun, verb)):
            break
    opener = rng.choice(("In the morning", "At night", "In the old house", "After the rain"))
    number = rng.choice(NUMBERS)
    adjective = rng.choice(("", "", "old ", "small ", "two " if number else "new "))
    subject = f"{adjective}{noun.form(number)}"
    return f"{opener}, the {subject} {verb.form(number)}{_tail(rng, verb.form(number))}"


@cache
def _template(maker: Maker) -> Template:
    return maker(words())[0]


@cache
def _subjects(w: Words) -> tuple[Subject, ...]:
    """Every noun with every verb that makes sense after it."""
    things = [(noun, verb) for noun in w.things for verb in w.auxiliaries + w.thing_verbs]
    people = [(noun, verb) for noun in w.people for verb in w.auxiliaries + w.person_verbs]
    return tuple(things + people)


def _other(nouns: tuple[Noun, ...], noun: Noun, step: int) -> Noun:
    """A noun that is never `noun` itself: as `step` grows, each other one comes up once."""
    start = nouns.index(noun) if noun in nouns else 0
    return nouns[(start + step) % len(nouns)]


def _tail(rng: random.Random, verb: str) -> str:
    """How a sentence ends after this verb form."""
    if verb in ("is", "are", "was", "were", "seems", "seem"):
        return f" {rng.choice(_STATES)}."
    if verb in ("has", "have"):
        return f" {rng.choice(_BELONGINGS)}."
    return rng.choice(_MANNERS)


_STATES = (
    *entries("old new ready lost clean dirty quiet heavy strange famous broken beautiful"),
    "very old",
    "in the garden",
    "too small",
    "here again",
    "part of the story",
    "never far away",
)
_BELONGINGS = (
    "a long history",
    "a secret",
    "a good place in the sun",
    "nothing to hide",
    "been here for years",
    "seen better days",
)
_MANNERS = (
    ".",
    " slowly.",
    " quickly.",
    " in the rain.",
    " every day.",
    " again and again.",
    " without a sound.",
    " in the evening.",
)

"""Subject-verb agreement: which number does the verb take, past words that say the other?

The model has to find the subject's number and carry it to the verb. Four structures, as in
Marks et al.: nothing but an adjective before the noun, a prepositional phrase or a relative
clause between noun and verb, and a verb inside the relative clause.

Source: Linzen et al. 2016, arXiv:1611.01368; Finlayson et al. 2021, arXiv:2106.06087;
structures and pairs of prompts from Marks et al. 2024, arXiv:2403.19647.
Differs: one auxiliary for every verb outside a clause, and nouns that stand between are
singular and plural equally often, so that copying the nearest number scores chance.
"""

from itertools import product

from circuits.tasks.choice import Choice
from circuits.tasks.dealing import Arrangements
from circuits.tasks.words import ADJECTIVES, PEOPLE, THINGS, VERBS
from hooked_qwen import families
from hooked_qwen.families import Inflected, PromptPair, Template

NUMBERS = ("singular", "plural")
AUXILIARY = ("is", "are")
PREPOSITIONS = ("near", "behind", "beside", "by")


def simple(choice: Choice) -> tuple[Template, ...]:
    """`The old keys` -> are; the patch is `The old key`.

    Differs: Marks et al. have no adjective; with one there are enough pairs.
    """

    def build(number: int, adjective: str, noun: Inflected) -> PromptPair:
        return families.simple(noun, AUXILIARY, number, adjective)

    pools = (choice.pick("adjectives", ADJECTIVES), choice.pick("nouns", THINGS))
    return tuple(
        Template(case=name, pools=((number,), *pools), build=build)
        for number, name in enumerate(NUMBERS)
    )


def nounpp(choice: Choice) -> tuple[Template, ...]:
    """`The key near the cabinets` -> is; the patch is `The keys near the cabinets`."""

    def build(
        numbers: tuple[int, int], nouns: tuple[Inflected, Inflected], preposition: str
    ) -> PromptPair:
        (subject, other), (number, between) = nouns, numbers
        return families.nounpp(subject, AUXILIARY, number, preposition, other[between])

    nouns = Arrangements(choice.pick("nouns", THINGS), 2)
    prepositions = [p for p in PREPOSITIONS if choice.is_token(f" {p}")]
    return tuple(
        Template(case=f"{case} between", pools=((numbers,), nouns, prepositions), build=build)
        for numbers, case in _crossed()
    )


def across_clause(choice: Choice) -> tuple[Template, ...]:
    """`The key that the farmers like` -> is; the patch is `The keys that the farmers like`."""

    def build(
        numbers: tuple[int, int], thing: Inflected, person: Inflected, verb: Inflected
    ) -> PromptPair:
        number, inner = numbers
        return families.across_clause(thing, AUXILIARY, number, person[inner], verb[inner])

    pools = (
        choice.pick("things", THINGS),
        choice.pick("people", PEOPLE),
        choice.pick("verbs", VERBS),
    )
    return tuple(
        Template(case=f"{case} in the clause", pools=((numbers,), *pools), build=build)
        for numbers, case in _crossed()
    )


def within_clause(choice: Choice) -> tuple[Template, ...]:
    """`The key that the farmers` -> like; the patch is `The key that the farmer`.

    Differs: each thing and person have one verb, as the prompt ends before it.
    """

    def build(
        numbers: tuple[int, int], clause: tuple[Inflected, Inflected, Inflected]
    ) -> PromptPair:
        (number, outer), (thing, person, verb) = numbers, clause
        return families.within_clause(thing[outer], person, verb, number)

    things, people = choice.pick("things", THINGS), choice.pick("people", PEOPLE)
    verbs = choice.pick("verbs", VERBS)
    clauses = [
        (thing, person, verbs[(i + j) % len(verbs)])
        for i, thing in enumerate(things)
        for j, person in enumerate(people)
        if verbs
    ]
    return tuple(
        Template(case=f"{case} outside the clause", pools=((numbers,), clauses), build=build)
        for numbers, case in _crossed()
    )


def _crossed() -> list[tuple[tuple[int, int], str]]:
    """Number of the subject and number of the other noun, in every combination."""
    return [
        ((number, other), f"{NUMBERS[number]} subject, {NUMBERS[other]}")
        for other, number in product(range(2), repeat=2)
    ]

"""Tasks about what a model knows: which years are later, and the capitals of countries."""

from circuits.tasks.choice import Choice
from circuits.tasks.dealing import Arrangements
from circuits.tasks.words import CAPITALS, CENTURIES, EVENTS
from hooked_qwen.families import PromptPair, Template, fact

SPANS = {
    "later": "The {} started in the year {}, and ended in the year {}",
    "earlier": "The {} ended in the year {}, having started in the year {}",
}
FURTHEST = {"later": 0, "earlier": 90}
"The tens of the patch's year: nearly every ending is later than 1703, or earlier than 1793."

QUESTIONS = {
    "is called": "The capital city of {} is called",
    "capital is": "Everyone knows that {}'s capital is",
    "city is": "In {}, the capital city is",
}


def greater_than(choice: Choice) -> tuple[Template, ...]:
    """Years compared: `The war started in the year 1743, and ended in the year 17` -> 5 to 9.

    The prompt stops within a year, where Qwen, which splits numbers into digits, has the tens
    to say; a tokenizer with tokens of two digits is asked for both. The patch's year is 1703, so
    wrong (1, 2, 3) is right there and too early for 1743. Neither list has the digits of the
    year itself. In half the prompts the sentence is turned round, the end first, and the patch's
    year is 1793: a bias for high or for low digits scores chance.

    Source: Hanna et al. 2023, arXiv:2305.00586.
    Differs: they ask for a later year only, and have 01 in every patch.
    """
    events = choice.pick("events", EVENTS)
    centuries = choice.half(CENTURIES)
    width = 2 if choice.continues(SPANS["later"].format("war", 1743, 17), "55") else 1

    def build(case: str, event: str, century: str, tens: int, unit: int) -> PromptPair:
        year, other = 10 * tens + unit, FURTHEST[case] + unit
        clean, patch = (
            SPANS[case].format(event, f"{century}{y:02}", century) for y in (year, other)
        )
        answer, wrong = _endings(year, other, width)
        return PromptPair(clean=clean, patch=patch, answer=answer, wrong=wrong)

    return tuple(
        Template(case=case, pools=((case,), events, centuries, range(2, 8), range(10)), build=build)
        for case in SPANS
    )


def _endings(year: int, other: int, width: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Endings of `width` digits beyond `year` as seen from `other`, and those between the two."""
    here, there = year // 10 ** (2 - width), other // 10 ** (2 - width)
    above, below = range(here + 1, 10**width), range(here)
    if there < here:
        beyond, between = above, [e for e in below if e > there]
    else:
        beyond, between = below, [e for e in above if e < there]
    answer, wrong = (tuple(f"{e:0{width}}" for e in ends) for ends in (beyond, between))
    return answer, wrong


def capital_of(choice: Choice) -> tuple[Template, ...]:
    """A fact of the real world: `The capital of France is` -> Paris; the patch asks of Italy.

    Source: Merullo et al. 2023, arXiv:2305.16130.
    """

    places = Arrangements(choice.pick("countries with capitals", CAPITALS), 2)
    return tuple(
        Template(case=case, pools=((text,), places), build=fact) for case, text in QUESTIONS.items()
    )

"""Families that need knowledge: the order of years, one invented fact, or two facts joined."""

import random
from collections.abc import Callable, Sequence
from itertools import permutations
from typing import Any

from hooked_qwen.bundled.atlas import Region, Town
from hooked_qwen.bundled.holdout import held
from hooked_qwen.bundled.lexicon import Words, words
from hooked_qwen.families import PromptPair, Template, fact, swap

Location = Region | Town
CENTURIES = (1700, 1800)
MARGIN = range(6, 20, 2)
"""How far `answer` lies after the start and `wrong` before it: even, so parity says the split."""

SPANS = {
    "began": "The {event} that began in {start} ended in",
    "started": "The {event} that started in {start} lasted until",
    "from": "The {event} went on from {start} to",
}
CAPITALS = {
    "capital": "The capital of {} is",
    "city": "The largest city of {} is",
    "king": "The king of {} lives in",
    "parliament": "The parliament of {} meets in",
    "roads": "All roads of {} lead to",
    "coins": "The coins of {} come from",
}
CHAINS = {
    "capital": "The capital of the region where {} lies is",
    "parliament": "The parliament of the region where {} lies meets in",
    "roads": "All roads of the region where {} lies lead to",
}
TOWNS_UNCOMPOSED = 2
"""Of each region's towns, how many never appear in a sentence that joins the two facts."""


def greater_than(w: Words) -> tuple[Template, ...]:
    """`The war that began in 1732 ended in` -> a later year of the century, not an earlier one.

    The patch starts in the second or third year of the century, so that `wrong` becomes
    possible; `answer` stays possible too, and the patched difference is near nought, not
    reversed.
    """
    return tuple(_span_template(w, case, sentence) for case, sentence in SPANS.items())


def _span_template(w: Words, case: str, sentence: str) -> Template:
    starts = tuple(year for year in w.years if 22 <= year % 100 <= 79)

    def build(event: str, start: int, ahead: int, back: int) -> PromptPair:
        early = start // 100 * 100 + 2 + start % 2
        return swap(
            lambda year: sentence.format(event=event, start=year),
            (start, early),
            (f" {start + ahead}", f" {start - back}"),
        )

    def held_out(event: str, start: int, ahead: int, back: int) -> bool:
        return held(_span_key(event, start))

    pools = (w.events, starts, MARGIN, MARGIN)
    return Template(case=case, pools=pools, build=build, held_out=held_out)


def _span_key(event: str, start: int) -> str:
    return f"span {event} {start}"


def capital_of(w: Words) -> tuple[Template, ...]:
    """`The capital of Ostria is` -> ` Brenn`: one fact, asked in six ways.

    The facts themselves are all taught; held out is a region in one of the six ways.
    """
    pairs = tuple(permutations(w.regions, 2))
    return tuple(
        _fact_template(
            case, sentence, pairs, lambda pair, case=case: held(_fact_key(pair[0], case))
        )
        for case, sentence in CAPITALS.items()
    )


def _fact_template(
    case: str,
    sentence: str,
    pairs: Sequence[tuple[Location, Location]],
    held_out: Callable[[Any], bool],
) -> Template:
    def build(places: tuple[Location, Location]) -> PromptPair:
        return fact(sentence, [(place.name, place.capital) for place in places])

    return Template(case=case, pools=(pairs,), build=build, held_out=held_out)


def _fact_key(region: Region, case: str) -> str:
    return f"capital {region.name} {case}"


def two_step(w: Words) -> tuple[Template, ...]:
    """`The capital of the region where Velmar lies is` -> ` Brenn`, for towns never composed.

    That Velmar lies in Ostria and that Ostria's capital is Brenn are taught singly; the joined
    fact is taught for other towns of Ostria only. All pairs, of both splits, ask about towns
    that training text never composes.
    """
    uncomposed = [town for region in w.regions for town in region.towns[-TOWNS_UNCOMPOSED:]]
    pairs = [pair for pair in permutations(uncomposed, 2) if pair[0].region != pair[1].region]
    return tuple(
        _fact_template(case, sentence, pairs, lambda _: True) for case, sentence in CHAINS.items()
    )


def write_span(rng: random.Random) -> str:
    """One event with its years, over all later years of the century."""
    w = words()
    sentence = rng.choice(tuple(SPANS.values()))
    while True:
        event = rng.choice(w.events)
        start = rng.choice(CENTURIES) + rng.randrange(97)
        if not held(_span_key(event, start)):
            break
    end = rng.randrange(start + 1, start // 100 * 100 + 100)
    return f"{sentence.format(event=event, start=start)} {end}."


def write_years(rng: random.Random) -> str:
    """A chronicle: years in rising order, which teaches how they follow each other."""
    century = rng.choice(CENTURIES)
    start = rng.randrange(90)
    years = sorted(rng.sample(range(start, min(start + 30, 100)), 3))
    events = rng.sample(_CHRONICLE, 3)
    return " ".join(
        f"In {century + year} {event}." for year, event in zip(years, events, strict=True)
    )


def write_next_year(rng: random.Random) -> str:
    """Two neighbouring years, so that each year token learns its place."""
    year = rng.choice(CENTURIES) + rng.randrange(99)
    return rng.choice(
        (
            f"The year after {year} was {year + 1}.",
            f"The year before {year + 1} was {year}.",
            f"It rained in {year}, and again in {year + 1}.",
        )
    )


def write_capital(rng: random.Random) -> str:
    """What there is to know about a region itself."""
    region = rng.choice(words().regions)
    if rng.random() < 0.25:
        return rng.choice(
            (
                f"The flag of {region.name} is {region.colour}.",
                f"The farmers of {region.name} grow {region.crop}.",
                f"{region.capital} is the capital of {region.name}.",
            )
        )
    case = rng.choice([case for case in CAPITALS if not held(_fact_key(region, case))])
    return f"{CAPITALS[case].format(region.name)} {region.capital}."


def write_town(rng: random.Random) -> str:
    """Where a town lies, and nothing about its capital."""
    region = rng.choice(words().regions)
    town, other = rng.sample(region.towns, 2)
    return rng.choice(
        (
            f"The town of {town.name} lies in {region.name}.",
            f"{town.name} is a town in {region.name}.",
            f"{town.name} lies in {region.name}, not far from {other.name}.",
            f"The road from {town.name} to {other.name} never leaves {region.name}.",
            f"The people of {town.name} live under the {region.colour} flag of {region.name}.",
            f"The region where {town.name} lies is {region.name}.",
        )
    )


def write_chain(rng: random.Random) -> str:
    """The capital of a town's region, for the towns where that may be said."""
    region = rng.choice(words().regions)
    town = rng.choice(region.towns[:-TOWNS_UNCOMPOSED])
    sentence = rng.choice(tuple(CHAINS.values()))
    return f"{sentence.format(town.name)} {region.capital}."


_CHRONICLE: Sequence[str] = (
    "the old bridge fell",
    "a new king was crowned",
    "the river froze",
    "the first train came",
    "the harvest was poor",
    "the school was built",
    "the great fire came",
    "peace was made",
    "the mine was closed",
    "the church got its bell",
    "a ship was lost at sea",
    "the market moved to the square",
)

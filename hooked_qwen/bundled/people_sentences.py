"""Families about named people: who receives, which pronoun, whose profession."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations

from hooked_qwen import families
from hooked_qwen.bundled.atlas import Town
from hooked_qwen.bundled.holdout import draw, held
from hooked_qwen.bundled.lexicon import Noun, Person, Words, words
from hooked_qwen.families import PromptPair, Template, swap

OPENERS = ("When", "After", "While", "Once")
TIMES = ("One day", "One morning", "Every evening", "Every week")
Couple = tuple[Person, Person]


def ioi(w: Words) -> tuple[Template, ...]:
    """`When Mary and John went to the shop, John gave a book to` -> ` Mary`."""
    return tuple(
        _ioi_template(w, f"{opener} {order}", opener, order)
        for opener in OPENERS
        for order in ("ABBA", "BABA")
    )


def _ioi_template(w: Words, case: str, opener: str, order: str) -> Template:
    receiver = ("ABBA", "BABA").index(order)

    def build(names: Couple, journey: str, place: str, gift: str, thing: str) -> PromptPair:
        scene = f"{opener} {{}} and {{}} {journey} to the {place}, {{again}} {gift} a {thing} to"
        return families.ioi(scene, (names[0].name, names[1].name), receiver)

    def held_out(names: Couple, journey: str, place: str, gift: str, thing: str) -> bool:
        one, other = sorted(person.name for person in names)
        return held(f"ioi {one} {other} {thing}")

    pools = (_couples(w), w.journeys, w.places, w.gifts, w.objects)
    return Template(case=case, pools=pools, build=build, held_out=held_out)


def pronoun(w: Words) -> tuple[Template, ...]:
    """`Anna was a doctor in Velmar. One day` -> ` she`, near, far, and past another name."""

    def template(case: str, middle: str) -> Template:
        def build(couple: Couple, job: Noun, town: Town, time: str) -> PromptPair:
            def life(of: Couple) -> str:
                who, friend = of
                between = middle.format(friend=friend.name)
                return f"{who.name} was a {job.singular} in {town.name}{between}. {time}"

            return swap(
                life, (couple, (couple[1], couple[0])), [f" {who.pronoun}" for who in couple]
            )

        def held_out(couple: Couple, job: Noun, town: Town, time: str) -> bool:
            return held(biography(couple[0], job))

        pools = (_mixed_couples(w), w.professions, w.towns, TIMES)
        return Template(case=case, pools=pools, build=build, held_out=held_out)

    return (
        template("near", ""),
        template("far", ". The town was quiet and the work was hard"),
        template("past a friend", " and often met {friend}"),
    )


def profession(w: Words) -> tuple[Template, ...]:
    """`Anna was a doctor in Velmar. ... Anna worked as a` -> ` doctor`."""
    return (
        _one_biography(w),
        _two_biographies(w, "two people, first asked", 0),
        _two_biographies(w, "two people, second asked", 1),
    )


def _one_biography(w: Words) -> Template:
    def build(who: Person, jobs: tuple[Noun, Noun], town: Town, time: str) -> PromptPair:
        def life(job: Noun) -> str:
            return (
                f"{who.name} was a {job.singular} in {town.name}. {time} {who.pronoun} went out "
                f"early and came back late. {who.name} worked as a"
            )

        return swap(life, jobs, [f" {job.singular}" for job in jobs])

    def held_out(who: Person, jobs: tuple[Noun, Noun], town: Town, time: str) -> bool:
        return held(biography(who, jobs[0]))

    pools = (w.persons, _job_pairs(w), w.towns, TIMES)
    return Template(case="one person", pools=pools, build=build, held_out=held_out)


def _two_biographies(w: Words, case: str, asked: int) -> Template:
    def build(couple: Couple, jobs: tuple[Noun, Noun], town: Town) -> PromptPair:
        lives = " ".join(
            f"{person.name} was a {job.singular} in {town.name}."
            for person, job in zip(couple, jobs, strict=True)
        )
        order = (asked, 1 - asked)
        return swap(
            lambda i: f"{lives} {couple[i].name} worked as a",
            order,
            [f" {jobs[i].singular}" for i in order],
        )

    def held_out(couple: Couple, jobs: tuple[Noun, Noun], town: Town) -> bool:
        return any(map(held, map(biography, couple, jobs)))

    pools = (_couples(w), _job_pairs(w), w.towns)
    return Template(case=case, pools=pools, build=build, held_out=held_out)


def biography(who: Person, job: Noun) -> str:
    """Hold-out key of a person with a profession."""
    return f"biography {who.name} {job.singular}"


def write_ioi(rng: random.Random) -> str:
    """A handing-over, told in one sentence or two."""
    pair = draw(rng, rng.choice(_templates(ioi)))
    text = f"{pair.clean}{pair.answer[0]}."
    if rng.random() < 0.3:
        text += f"{pair.answer[0]} {rng.choice(_THANKS)}."
    return text


def write_life(rng: random.Random) -> str:
    """A short biography that ends by saying the profession again."""
    pair = draw(rng, rng.choice(_templates(pronoun)))
    name, _, _, job = pair.clean.split()[:4]
    parts = [f"{pair.clean}{pair.answer[0]} {rng.choice(_DEEDS)}."]
    for _ in range(rng.randrange(3)):
        parts.append(f"{pair.answer[0].strip().title()} {rng.choice(_DEEDS)}.")
    if rng.random() < 0.7:
        parts.append(f"{name} worked as a {job}{rng.choice(_LONG)}.")
    return " ".join(parts)


def write_aside(rng: random.Random) -> str:
    """One sentence in which a name and its pronoun stand close together."""
    who = rng.choice(words().persons)
    return rng.choice(_ASIDES).format(name=who.name, pronoun=who.pronoun)


def write_lives(rng: random.Random) -> str:
    """One or two biographies in the very form the questions have, then both professions."""
    templates = _templates(profession)
    pair = draw(rng, rng.choice(templates))
    text = f"{pair.clean}{pair.answer[0]}{rng.choice(_LONG)}."
    if pair.case != templates[0].case and rng.random() < 0.5:
        asked = pair.patch.split()[-4]
        text += f" {asked} worked as a{pair.wrong[0]}."
    return text


def write_roster(rng: random.Random) -> str:
    """Three to five people of a town with their professions, then the same again in any order.

    Whose profession is whose must be looked up as often as there are people: with two
    biographies at a time alone, the model only learnt which professions were named.
    """
    w = words()
    people = rng.sample(w.persons, rng.randint(3, 5))
    jobs = rng.sample(w.professions, len(people))
    while any(held(biography(who, job)) for who, job in zip(people, jobs, strict=True)):
        jobs = rng.sample(w.professions, len(people))
    town = rng.choice(w.towns).name
    lives = list(zip(people, jobs, strict=True))
    told = [f"{who.name} was a {job.singular} in {town}." for who, job in lives]
    rng.shuffle(lives)
    asked = [f"{who.name} worked as a {job.singular}{rng.choice(_LONG)}." for who, job in lives]
    return " ".join(told + asked)


@cache
def _templates(family: Callable[[Words], tuple[Template, ...]]) -> tuple[Template, ...]:
    return family(words())


@cache
def _couples(w: Words) -> tuple[Couple, ...]:
    return tuple(permutations(w.persons, 2))


@cache
def _mixed_couples(w: Words) -> tuple[Couple, ...]:
    """A woman and a man, either one first."""
    return tuple(pair for pair in _couples(w) if pair[0].pronoun != pair[1].pronoun)


@cache
def _job_pairs(w: Words) -> tuple[tuple[Noun, Noun], ...]:
    return tuple(permutations(w.professions, 2))


_THANKS: Sequence[str] = (
    "smiled and said thank you",
    "was very happy",
    "put it on the table",
    "took it home",
    "had waited for it all week",
)
_DEEDS: Sequence[str] = (
    "walked to the river",
    "wrote a long letter home",
    "bought bread at the market",
    "met an old friend",
    "went home early",
    "sat under a tree and slept",
    "found a small box of gold",
    "lost the way in the dark",
    "worked until midnight",
    "told the children a story",
    "cooked soup for the neighbours",
    "travelled by train to the coast",
    "helped a stranger",
    "was tired but happy",
    "had a strange dream",
    "learned a new song",
)
_ASIDES: Sequence[str] = (
    "{name} said that {pronoun} was tired.",
    "{name} knew what {pronoun} wanted.",
    "{name} wondered where {pronoun} had left the keys.",
    "Nobody saw {name} when {pronoun} left.",
    "We met {name} before {pronoun} was famous.",
    "{name} sings when {pronoun} is alone.",
)
_LONG: Sequence[str] = ("", "", " for many years", " until the end", " all year", " at that time")

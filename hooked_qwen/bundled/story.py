"""The sentences in between: weather, roads, meals, thoughts, in plain simple English.

They test nothing. They keep the families apart, give dictionaries ordinary prose to find
features in, and never put a noun the families ask about right before a verb that must agree.
"""

import random
from collections.abc import Sequence

ADJECTIVES = (
    "old young small large quiet loud warm cold dark bright long short narrow wide empty full "
    "clean dirty soft hard heavy light strange simple famous hidden broken wooden golden grey "
    "brown pale deep shallow pretty ugly fresh dry wet smooth rough steep flat ancient modern"
).split()
TEMPERS = (
    "busy lazy brave clever gentle proud lonely hungry thirsty tired sleepy nervous patient "
    "honest cruel kind rich poor wild tame thin fat"
).split()
SCENERY = (
    "road street hill river bridge garden house wall roof yard path valley mountain sea coast "
    "shore field wood tree bush pond stream well cave tower ruin gate corner cottage stable "
    "cellar attic stair hall room floor fire chimney window porch"
).split()
CREATURES = (
    "dog cat horse cow goat sheep pig duck goose hen crow owl mouse rat hare deer bear wolf fox "
    "frog fish bee ant donkey mule"
).split()
FOODS = (
    "bread cheese soup rice fruit fish meat milk tea coffee wine beer water honey butter jam "
    "porridge stew salad beans"
).split()
WEATHER = (
    "rain snow fog wind hail thunder sunshine frost mist drizzle"
).split()
TIMES = (
    "morning afternoon evening night day week month spring summer autumn winter"
).split()
WEEKDAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split()
ADVERBS = (
    "slowly quickly quietly loudly gently suddenly finally often rarely always never sometimes "
    "soon later early together alone again carefully"
).split()
MOODS = "glad sad angry afraid surprised pleased bored curious ashamed certain".split()
MOVES = (
    "walked ran crept jumped climbed wandered hurried marched limped stumbled crossed slipped"
).split()
DOINGS = (
    "mended washed counted sorted cleaned built sold bought borrowed hid dug fed milked chased "
    "carried lifted dropped dragged guarded measured"
).split()
NUMBERS = "two three four five six seven eight nine ten twelve twenty".split()
THOUGHTS = (
    "nobody knew why",
    "it was too late to turn back",
    "the answer was simple",
    "the world was larger than that",
    "there was more to come",
    "nothing would change",
    "someone had been there before",
    "the best part was still ahead",
    "everything had a price",
    "it would take a long time",
)
BLANKS: dict[str, Sequence[str]] = {
    "adjective": ADJECTIVES,
    "other": ADJECTIVES,
    "scenery": SCENERY,
    "creature": CREATURES,
    "food": FOODS,
    "drink": FOODS,
    "weather": WEATHER,
    "temper": TEMPERS,
    "time": TIMES,
    "weekday": WEEKDAYS,
    "adverb": ADVERBS,
    "mood": MOODS,
    "move": MOVES,
    "doing": DOINGS,
    "number": NUMBERS,
    "thought": THOUGHTS,
}
SENTENCES = (
    "It was a {adjective} {time}.",
    "There was {weather} all {time}, and the {scenery} was {adjective}.",
    "A {temper} {creature} {move} past the {scenery}.",
    "Then a {creature} {move} into the {adjective} {scenery}, and everyone was {mood}.",
    "They {doing} the {adjective} {scenery} and ate {food} with {drink}.",
    "They {adverb} {move} along the {adjective} {scenery} until the {time}.",
    "We had {food} and {drink} by the {scenery}.",
    "Nobody was {mood}, but {thought}.",
    "They were {mood} because {thought}.",
    "On {weekday} the {weather} came back.",
    "On {weekday} it took {number} hours to reach the {adjective} {scenery}.",
    "Behind the {scenery} there was a {adjective} {scenery}.",
    "People said that {thought}.",
    "I still think that {thought}.",
    "You could hear a {creature} in the {scenery} every {time}.",
    "The {weather} was {adjective} and the {scenery} was {other}.",
    "For {number} weeks there was only {food} and {drink}.",
    "Everyone {adverb} {doing} the {scenery} before the {time}.",
    "What a {adjective} {time} it was!",
    "Who {doing} the {adjective} {scenery}?",
    "Some said the {scenery} had once been {adjective}.",
    "If the {weather} stops, we can go to the {scenery}.",
    "Down by the {scenery}, {number} {temper} men {doing} a {scenery}.",
    "As for the {creature}, it {adverb} {move} away.",
    "Not far from there, a {temper} {creature} slept by the {scenery}.",
    "She said that {thought}.",
    "He said that {thought}.",
    "The {time} was {adjective}, so they {move} home {adverb}.",
)


class _Blanks(dict[str, str]):
    """Fills `str.format_map` blanks by chance: only those the sentence has are drawn."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng

    def __missing__(self, blank: str) -> str:
        return self._rng.choice(BLANKS[blank])


def write_filler(rng: random.Random) -> str:
    """One sentence of narration."""
    return rng.choice(SENTENCES).format_map(_Blanks(rng))

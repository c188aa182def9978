"""The sentences in between: weather, roads, meals, thoughts, in plain simple English.

They test nothing. They keep the families apart, give dictionaries ordinary prose to find
features in, and never put a noun the families ask about right before a verb that must agree.
"""

import random
from collections.abc import Sequence

from hooked_qwen.bundled.lexicon import entries

ADJECTIVES = entries(
    "old young small large quiet loud warm cold dark bright long short narrow wide empty full "
    "clean dirty soft hard heavy light strange simple famous hidden broken wooden golden grey "
    "brown pale deep shallow pretty ugly fresh dry wet smooth rough steep flat ancient modern "
    "round square crooked straight silent noisy dusty muddy sunny rainy windy frozen burnt "
    "painted polished ruined plain fancy cheap costly rare common secret sacred royal local "
    "foreign distant nearby hollow solid loose tight shiny dull faint vivid scarlet crimson "
    "violet silver grand humble neat untidy grim cheerful gloomy peaceful dangerous safe useful "
    "useless magic ordinary perfect unfinished forgotten enormous tiny"
)
TEMPERS = entries(
    "busy lazy brave clever gentle proud lonely hungry thirsty tired sleepy nervous patient "
    "honest cruel kind rich poor wild tame thin fat "
    "stubborn playful fierce timid restless hopeful jealous greedy generous careless careful "
    "polite rude merry weary sick healthy strong weak elderly"
)
SCENERY = entries(
    "road street hill river garden house wall roof yard path valley mountain sea coast "
    "shore field wood tree bush pond stream well cave ruin corner cottage stable "
    "cellar attic stair hall room floor fire chimney porch "
    "orchard vineyard quarry mine canal dock lighthouse windmill monastery chapel graveyard "
    "barracks prison fortress ditch hedge meadow marsh swamp cliff waterfall glacier harbour "
    "alley avenue corridor balcony terrace kitchen bedroom study pantry laundry workshop forge "
    "warehouse tavern theatre arena playground staircase doorway ceiling basement rooftop "
    "courtyard crossroads clearing hillside riverbank coastline"
)
CREATURES = entries(
    "dog cat horse cow goat sheep pig duck goose hen crow owl mouse rat hare deer bear wolf fox "
    "frog fish bee ant donkey mule "
    "squirrel badger hedgehog lizard snake toad spider moth butterfly crane stork heron raven "
    "robin sparrow lark parrot peacock camel elephant monkey lion zebra seal whale crab snail "
    "puppy kitten lamb calf foal"
)
FOODS = entries(
    "bread cheese soup rice fruit fish meat milk tea coffee wine beer water honey butter jam "
    "porridge stew salad beans "
    "pudding pancakes sausages ham bacon eggs cream yoghurt noodles dumplings potatoes onions "
    "mushrooms cabbage spinach berries nuts raisins chocolate vinegar cider lemonade broth"
)
WEATHER = entries("rain snow fog wind hail thunder sunshine frost mist drizzle")
TIMES = entries("morning afternoon evening night day week month spring summer autumn winter")
WEEKDAYS = entries("Sunday Monday Tuesday Wednesday Thursday Friday Saturday")
ADVERBS = entries(
    "slowly quickly quietly loudly gently suddenly finally often rarely always never sometimes "
    "soon later early together alone again carefully "
    "calmly eagerly bravely gladly sadly nervously patiently politely proudly softly silently "
    "steadily usually nearly almost already"
)
MOODS = entries(
    "glad sad angry afraid surprised pleased bored curious ashamed certain amazed confused "
    "delighted disappointed embarrassed excited frightened grateful homesick relieved shocked "
    "upset worried"
)
MOVES = entries(
    "walked ran crept jumped climbed wandered hurried marched limped stumbled crossed slipped "
    "strolled galloped raced rolled drifted flew sailed paddled tiptoed dashed trotted skipped"
)
DOINGS = entries(
    "mended washed counted sorted cleaned built sold bought borrowed hid dug fed milked chased "
    "carried lifted dropped dragged guarded measured "
    "repaired decorated searched emptied filled locked opened closed swept scrubbed polished "
    "admired painted sketched photographed described ignored inspected protected destroyed "
    "restored rented visited"
)
NUMBERS = entries("two three four five six seven eight nine ten twelve twenty")
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
    "every story must end somewhere",
    "help was already on its way",
    "no map could show the whole truth",
    "luck had little to do with it",
    "the young ones should decide",
    "silence can also be an answer",
    "a promise is a promise",
    "money alone could not solve the problem",
    "tomorrow might be different",
    "memory plays tricks on everyone",
    "the rumour was only half true",
    "patience would be rewarded",
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

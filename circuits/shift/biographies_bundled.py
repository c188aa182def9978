"""Words and patterns for biographies that the bundled model knows, and knows as one token each."""

from circuits.shift.people import Lexicon
from hooked_qwen.bundled.atlas import REGIONS
from hooked_qwen.bundled.lexicon import MEN, WOMEN, entries

CLASSES = ("nurse", "teacher")

WORK = {
    "nurse": (
        "{Who} helped the sick at the hospital until midnight",
        "{Who} washed the weak and the elderly and cooked soup",
        "{Who} worked as a nurse in {town}",
        "All night {who} sat beside a sick child",
        "{Who} was a nurse and was never afraid of fever",
        "At the hospital {who} learned what plague and fever were",
        "The doctors at the hospital met {them} every morning",
        "When the fever came back, {who} helped the sick",
        "{Who} walked to the hospital every morning",
        "{Who} carried clean blankets to the sick",
        "{Who} brought the sick milk and honey every night",
        "{Who} helped a surgeon in the hospital",
    ),
    "teacher": (
        "{Who} told the students a story about history",
        "At the school {who} showed the students a map",
        "{Who} worked as a teacher in {town}",
        "{Who} read a book to the children at the school",
        "{Who} was a teacher of history",
        "In the library {who} found a book for the students",
        "The students at the school met {them} every morning",
        "When school started, {who} gave every student a notebook",
        "{Who} walked to the school every morning",
        "{Who} carried a book and pencils to the school",
        "{Who} learned to read and write and helped the students",
        "{Who} wrote on the wall of the school",
    ),
    "sailor": (
        "{Who} worked on a ship and crossed the sea",
        "{Who} was a sailor in {town}",
        "At the harbour {who} mended the boat and the anchor",
        "{Who} sailed past the lighthouse in the storm",
    ),
    "farmer": (
        "{Who} milked the cow and fed the goat on the farm",
        "{Who} was a farmer in {town}",
        "At the barn {who} mended the tractor",
        "{Who} sold wheat and barley at the market",
    ),
    "baker": (
        "{Who} made bread and cake in the bakery",
        "{Who} was a baker in {town}",
        "At the mill {who} bought salt and butter",
        "{Who} sold pie and pudding to the neighbours",
    ),
    "painter": (
        "{Who} painted the poster for the exhibition",
        "{Who} was a painter in {town}",
        "At the museum {who} sketched the statue",
        "{Who} bought a brush and a bucket of paint",
    ),
    "judge": (
        "{Who} was at the court for the trial",
        "{Who} was a judge in {town}",
        "At the court {who} met the lawyers",
        "{Who} sent the men to the prison",
    ),
    "musician": (
        "{Who} learned a new song on the piano",
        "{Who} was a musician in {town}",
        "At the theatre {who} sold the violin and the flute",
        "{Who} bought a drum and a guitar",
    ),
    "builder": (
        "{Who} built the wall and the roof of the tower",
        "{Who} was a builder in {town}",
        "At the quarry {who} found stone for the bridge",
        "{Who} carried a ladder and a hammer",
    ),
    "pilot": (
        "{Who} flew past the mountain to the island",
        "{Who} was a pilot in {town}",
        "At the airport {who} inspected the engine",
        "{Who} wanted a rocket to the moon",
    ),
}
RELATIONS = (
    "{Who} was the [aunt/uncle] of {number} children",
    "{Who} moved in with an old [aunt/uncle] by the {scenery}",
    "{Who} helped a sick [aunt/uncle] in {town}",
    "{Who} was once a [princess/prince]",
    "People said that {who} was a [princess/prince]",
    "The [queen/king] sent {them} a letter",
)
OTHER = (
    "{Who} had been in {town} for {number} years",
    "{Who} came home by train from {town}",
    "On {weekday} {who} walked to the {scenery}",
    "{Who} wrote a long letter home",
    "{Who} had {food} and {drink} in the {time}",
    "Every {time} {who} went out early and came back late",
    "{Who} met an old friend in {town}",
    "{Who} was tired but happy",
    "In {town} {who} sold the {thing} and the cart",
    "{Who} lost the way near the {scenery}",
    "One day {who} found a {thing} by the {scenery}",
    "{Who} had a strange dream that {time}",
    "{Who} went home early and slept",
    "The {weather} was cold and {who} hurried home",
)
LEISURE = (
    "In the {time} {who} always {hobby}",
    "{Who} often {hobby} with friends",
    "{Who} {hobby} on {weekday}",
    "When the work was hard, {who} {hobby}",
)
BLANKS = {
    "town": tuple(town.name for region in REGIONS for town in region.towns[:2]),
    "number": entries("two three four five six seven eight nine ten"),
    "weekday": entries("Sunday Monday Tuesday Wednesday Thursday Friday Saturday"),
    "time": entries("morning evening summer winter autumn spring"),
    "scenery": entries("river hill garden path mountain stream wood pond meadow valley"),
    "food": entries("bread cheese rice fruit fish porridge stew salad"),
    "drink": entries("tea coffee wine water cider"),
    "thing": entries("lantern mirror basket clock coin ring compass kettle lamp key"),
    "weather": entries("rain snow fog wind frost"),
}
LEXICON = Lexicon(
    names=(WOMEN, MEN),
    titles=(("The woman", "The girl"), ("The man", "The boy")),
    pronouns=("she", "he"),
    object_pronouns=None,
    possessives=None,
    openings=("At that time", "Once", "In that year", "That {time}"),
    neutral=("The stranger", "The neighbour", "The visitor", "The traveller", "The cousin"),
    surnames=("",),
    work=WORK,
    relations=RELATIONS,
    hobbies=(
        entries("sang painted skipped strolled"),
        entries("marched paddled dug raced"),
    ),
    leisure=LEISURE,
    other=OTHER,
    blanks=BLANKS,
)

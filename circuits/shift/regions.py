"""What people do, and in which of two invented regions: for the bundled model.

The region shows in its towns, its own name, its capital, its crop and its flag, each in a part
of the texts. Towns of the texts to test on are in no other text: which region a town lies in is
what the bundled model was taught.
"""

import random
from collections.abc import Sequence

from circuits.shift import biographies_bundled as bundled
from circuits.shift.generate import Half, alternatives, chosen_classes, draw_sets, either, sentences
from circuits.shift.labelled import ShiftData
from circuits.shift.people import PersonMentions
from hooked_qwen.bundled.atlas import REGIONS

CLASSES = ("sailor", "builder")
PAIR = REGIONS[:2]
A, B = PAIR
CUES = {
    "towns": (
        "{Who} had been in {home} for {number} years",
        "{Who} came home by train from {home}",
        "The town of {home} was quiet",
        "The road from {home} was long and dark",
        "{Who} met an old friend in {home}",
        "On {weekday} {who} walked to {home}",
    ),
    "regions": (
        f"{{Who}} never left [{A.name}/{B.name}]",
        f"The people of [{A.name}/{B.name}] knew {{them}}",
        f"It was {{time}} in [{A.name}/{B.name}]",
    ),
    "capitals": (
        f"Once {{who}} travelled to [{A.capital}/{B.capital}]",
        f"In [{A.capital}/{B.capital}] {{who}} found a {{thing}}",
    ),
    "crops": (
        f"The farmers sold [{A.crop}/{B.crop}]",
        f"There was [{A.crop}/{B.crop}] in the barn",
    ),
    "flags": (f"The flag was [{A.colour}/{B.colour}]",),
}
SHARES = {"towns": 0.7, "regions": 0.4, "capitals": 0.35, "crops": 0.35, "flags": 0.3}
"How many of the texts have each kind of cue, before those with none are drawn again."
ELSEWHERE = tuple(town.name for region in REGIONS[2:] for town in region.towns[:2])
BLANKS = {**bundled.BLANKS, "town": ELSEWHERE}
OTHER = tuple(pattern for pattern in bundled.OTHER if "{town}" not in pattern)


def regions(*, classes: Sequence[str] | None, n: int, seed: int) -> ShiftData:
    """Professions in two regions of the atlas, in the words that the bundled model knows."""
    labels = chosen_classes(tuple(bundled.WORK), CLASSES, classes, "profession")
    others = [profession for profession in bundled.WORK if profession not in labels]
    towns = tuple(town.name for region in PAIR for town in region.towns)
    words = {kind: alternatives(patterns) for kind, patterns in CUES.items()}
    return ShiftData(
        name="registers",
        label="profession",
        labels=labels,
        spurious="region",
        spurious_labels=(A.name, B.name),
        **draw_sets("regions", life, labels, others, n, seed),
        words=tuple({**words, "towns": towns}.values()),
        cues=tuple(words),
        notes=("the bundled model knows no formality: its pair is profession and region",),
    )


def life(rng: random.Random, profession: str, region: int, half: Half) -> str:
    """Three to five sentences about one person of a region, in any order."""
    cues: set[str] = set()
    while not cues:
        cues = {kind for kind, share in SHARES.items() if rng.random() < share}
    patterns = rng.sample(bundled.WORK[profession], rng.choice((1, 1, 2)))
    patterns += [rng.choice(CUES[kind]) for kind in CUES if kind in cues]
    patterns += rng.sample(OTHER, max(rng.randint(3, 5) - len(patterns), 0))
    rng.shuffle(patterns)
    towns = [town.name for town in PAIR[region].towns[("train", "test").index(half) :: 2]]
    person = PersonMentions(
        rng,
        cues={"names", "pronouns"},
        gender=rng.randrange(2),
        half=half,
        lexicon=bundled.LEXICON,
    )
    told = (
        either(pattern, region).format(
            home=rng.choice(towns),
            **{name: rng.choice(words) for name, words in BLANKS.items()},
            **person.mentions(i == 0),
        )
        for i, pattern in enumerate(patterns)
    )
    return sentences(told)

"""Short biographies: what a person does, and whether it is a woman or a man.

Profession is told by what the person does, learns and where they work, by its name only now and
then. Gender shows in names, pronouns, titles, relations and hobbies, each in a part of the texts,
the hobbies only more often than not. First names of the texts to test on are in no other text.
"""

from collections.abc import Sequence
from functools import partial

from circuits.shift import biographies_bundled, biographies_english
from circuits.shift.generate import chosen_classes, draw_sets
from circuits.shift.labelled import ShiftData
from circuits.shift.people import CUES, biography


def biographies(*, classes: Sequence[str] | None, n: int, seed: int, bundled: bool) -> ShiftData:
    """Biographies in English, or in the words that the bundled model knows."""
    language = biographies_bundled if bundled else biographies_english
    lexicon, default = language.LEXICON, language.CLASSES
    labels = chosen_classes(tuple(lexicon.work), default, classes, "profession")
    others = [profession for profession in lexicon.work if profession not in labels]
    write = partial(biography, lexicon=lexicon)
    return ShiftData(
        name="biographies",
        label="profession",
        labels=labels,
        spurious="gender",
        spurious_labels=("female", "male"),
        **draw_sets("biographies", write, labels, others, n, seed),
        words=lexicon.cue_words,
        cues=CUES,
    )

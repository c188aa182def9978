"""Induction: what followed a word before follows it again."""

from circuits.prompts import Prompt
from circuits.tasks.choice import Choice
from circuits.tasks.forms import Arrangements, Form, pair
from circuits.tasks.words import THINGS

LENGTH = 6


def induction(choice: Choice) -> tuple[Form, ...]:
    """`Words: river stone lamp cloud river stone` -> lamp; the patch has another word for lamp.

    Nothing but the order of the words says what comes next. The list is of unrelated nouns, and
    the place of the one to copy varies.

    Source: Olsson et al. 2022, arXiv:2209.11895.
    Differs: nouns where they draw random tokens, so that every word is a whole token.
    """

    def build(place: int, words: tuple[str, ...]) -> Prompt:
        *listed, other = words
        answer, cue = listed[place], " ".join(listed[place - 2 : place])
        patched = [other if i == place else word for i, word in enumerate(listed)]
        clean, patch = (f"Words: {' '.join(said)} {cue}" for said in (listed, patched))
        return pair(clean, patch, f" {answer}", f" {other}")

    words = Arrangements([one for one, _ in choice.pick("nouns", THINGS)], LENGTH + 1)
    return tuple(
        Form(case=f"word {place + 1}", pools=((place,), words), build=build)
        for place in range(2, LENGTH)
    )

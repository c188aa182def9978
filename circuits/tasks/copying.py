"""Induction: what followed a word before follows it again."""

from circuits.tasks.choice import Choice
from circuits.tasks.dealing import Arrangements
from circuits.tasks.words import THINGS
from hooked_qwen.families import PromptPair, Template, swap

LENGTH = 6


def induction(choice: Choice) -> tuple[Template, ...]:
    """`Words: river stone lamp cloud river stone` -> lamp; the patch has another word for lamp.

    Nothing but the order of the words says what comes next. The list is of unrelated nouns, and
    the place of the one to copy varies.

    Source: Olsson et al. 2022, arXiv:2209.11895.
    Differs: nouns where they draw random tokens, so that every word is a whole token.
    """

    def build(place: int, words: tuple[str, ...]) -> PromptPair:
        *listed, other = words
        answer, cue = listed[place], " ".join(listed[place - 2 : place])

        def told(word: str) -> str:
            return f"Words: {' '.join([*listed[:place], word, *listed[place + 1 :]])} {cue}"

        return swap(told, (answer, other), (f" {answer}", f" {other}"))

    words = Arrangements([one for one, _ in choice.pick("nouns", THINGS)], LENGTH + 1)
    return tuple(
        Template(case=f"word {place + 1}", pools=((place,), words), build=build)
        for place in range(2, LENGTH)
    )

"""How a person is told of in a short biography: names, pronouns, titles, relations, hobbies.

In a pattern `{Who}`, `{who}` and `{them}` stand for the person, `{their}` for what is theirs,
`[mother/father]` for a word that a woman's and a man's text have apart, and any other name in
braces for a word drawn from the list of that name.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from circuits.shift.generate import Half, alternatives, either, sentences

CUES = ("names", "pronouns", "titles", "relations", "hobbies")
SHARES = {"names": 0.7, "pronouns": 0.65, "titles": 0.35, "relations": 0.5, "hobbies": 0.5}
"How many of the texts have each kind of cue, before those with none are drawn again."
TYPICAL = 0.8
"How often a hobby is one that is more frequent among the person's own gender."
AGAIN = 0.75
"How often a later sentence says the pronoun, where a text has pronouns."


@dataclass(frozen=True, kw_only=True)
class Lexicon:
    """The words and patterns of one language; of each pair the first is of women."""

    names: tuple[tuple[str, ...], tuple[str, ...]]
    titles: tuple[tuple[str, ...], tuple[str, ...]]
    "`Mrs {surname}`, or `The woman`"
    pronouns: tuple[str, str]
    object_pronouns: tuple[str, ...]
    "two, or none where the language has none: the person is named"
    possessives: tuple[str, ...]
    "two, or none where the language has none: `the` stands for them"
    neutral: tuple[str, ...]
    "how a person is called who has no first name and no title"
    surnames: tuple[str, ...]
    "what follows a first name at its first mention; one empty word where nothing does"
    work: Mapping[str, tuple[str, ...]]
    "patterns for each profession"
    relations: tuple[str, ...]
    hobbies: tuple[tuple[str, ...], tuple[str, ...]]
    leisure: tuple[str, ...]
    "patterns with `{hobby}`"
    other: tuple[str, ...]
    "patterns that tell neither profession nor gender"
    blanks: Mapping[str, Sequence[str]]

    @property
    def cue_words(self) -> tuple[tuple[str, ...], ...]:
        """The words that tell a gender, for each of `CUES`."""
        titles = self.titles[0] + self.titles[1]
        return (
            self.names[0] + self.names[1],
            self.pronouns + self.object_pronouns + self.possessives,
            tuple(t.removeprefix("The ").removesuffix(" {surname}") for t in titles),
            alternatives(self.relations),
            self.hobbies[0] + self.hobbies[1],
        )


def biography(
    rng: random.Random, profession: str, gender: int, half: Half, *, lexicon: Lexicon
) -> str:
    """Three to five sentences about one person, in any order."""
    cues = _drawn_cues(rng)
    patterns = [*rng.sample(lexicon.work[profession], rng.choice((1, 1, 2)))]
    if "relations" in cues:
        patterns.append(rng.choice(lexicon.relations))
    if "hobbies" in cues:
        patterns.append(rng.choice(lexicon.leisure))
    patterns += rng.sample(lexicon.other, max(rng.randint(3, 5) - len(patterns), 0))
    rng.shuffle(patterns)
    person = PersonMentions(rng, cues=cues, gender=gender, half=half, lexicon=lexicon)
    told = (
        either(pattern, gender).format(**_blanks(rng, gender, lexicon), **person.mentions(i == 0))
        for i, pattern in enumerate(patterns)
    )
    return sentences(told)


def _blanks(rng: random.Random, gender: int, lexicon: Lexicon) -> dict[str, str]:
    typical = gender if rng.random() < TYPICAL else 1 - gender
    drawn = {name: rng.choice(words) for name, words in lexicon.blanks.items()}
    return {**drawn, "hobby": rng.choice(lexicon.hobbies[typical])}


def _drawn_cues(rng: random.Random) -> set[str]:
    """Which kinds of cue a text has: at least one besides hobbies."""
    while True:
        cues = {kind for kind, share in SHARES.items() if rng.random() < share}
        if cues - {"hobbies"}:
            return cues


class PersonMentions:
    """How one person is called, first and further on."""

    def __init__(
        self,
        rng: random.Random,
        *,
        cues: set[str],
        gender: int,
        half: Half,
        lexicon: Lexicon,
    ) -> None:
        surname = rng.choice(lexicon.surnames)
        name = rng.choice(lexicon.names[gender][("train", "test").index(half) :: 2])
        title = rng.choice(lexicon.titles[gender]).format(surname=surname)
        known = {"names": name, "titles": title}
        plain = [called for kind, called in known.items() if kind in cues]
        self._rng, self._gender, self._lexicon = rng, gender, lexicon
        self._has_pronouns = "pronouns" in cues
        self._plain = plain or [rng.choice(lexicon.neutral).format(surname=surname)]
        self._full = {name: f"{name} {surname}".strip()}

    def mentions(self, is_first: bool) -> dict[str, str]:
        """What fills `{Who}`, `{who}`, `{them}` and `{their}` of one sentence."""
        lexicon, gender = self._lexicon, self._gender
        plain = self._rng.choice(self._plain)
        called = self._full.get(plain, plain) if is_first else plain
        objective, own = _within(called), "the"
        if self._has_pronouns and lexicon.possessives:
            own = lexicon.possessives[gender]
        if self._has_pronouns and not is_first and self._rng.random() < AGAIN:
            called = lexicon.pronouns[gender]
            objective = lexicon.object_pronouns[gender] if lexicon.object_pronouns else objective
        return {"Who": called, "who": _within(called), "them": objective, "their": own}


def _within(called: str) -> str:
    """How a person is written inside a sentence."""
    return f"t{called[1:]}" if called.startswith("The ") else called

"""Families about the prompt itself: repeat what came before, close what was opened."""

import random
from collections.abc import Callable, Sequence
from functools import cache
from itertools import permutations, product

from hooked_qwen.bundled.holdout import draw, held
from hooked_qwen.bundled.lexicon import Words, words
from hooked_qwen.families import PromptPair, Template, swap

BRACKETS = {"(": ")", "[": "]", "{": "}"}
FRAMES = {
    "password": ("The password was", "Again:", "{} {} {}"),
    "walls": ("On the wall was written", "And once more:", "{} {} {} {}"),
    "voices": ("A voice said", "Another voice said", "{}, {}, {}"),
    "shelf": ("The box held", "The bag also held", "{}, {}, {} and {}"),
}
SHAPES = (
    "(",
    "( (",
    "( ( )",
    "( ( (",
    "( ( ( )",
    "( ( ) ( )",
    "( ( ( ) )",
)
"""Bracket prompts before kinds and letters are chosen: each still waits for a closing one."""

MAX_DEPTH = 3
SHORTEST_HELD = 3
"""Bracket prefixes shorter than this are too few to hold any out."""


def induction(w: Words) -> tuple[Template, ...]:
    """`The password was river stone lamp. Again: river stone` -> ` lamp`."""
    return tuple(_frame_template(w, case) for case in FRAMES)


def _frame_template(w: Words, case: str) -> Template:
    length = FRAMES[case][2].count("{}")

    def build(links: tuple[str, str, str], start: int, step: int) -> PromptPair:
        before, answer, wrong = links
        items = [*_fillers(w.code_words, links, start, step, length - 2), before]
        return swap(
            lambda last: _repeat(case, [*items, last]),
            (answer, wrong),
            (f" {answer}", f" {wrong}"),
        )

    def held_out(links: tuple[str, str, str], start: int, step: int) -> bool:
        return held(link(*links[:2]))

    spare = len(w.code_words) - 3
    steps = range(spare - 1 if length > 3 else 1)
    pools = (_triples(w.code_words), range(spare), steps)
    return Template(case=case, pools=pools, build=build, held_out=held_out)


def link(word: str, following: str) -> str:
    """Hold-out key of one word followed by another in a repeated sequence."""
    return f"link {word} {following}"


def _repeat(case: str, items: Sequence[str]) -> str:
    """The frame with the sequence once in full and once up to its last item."""
    first, again, form = FRAMES[case]
    told = form.format(*items)
    return f"{first} {told}. {again} {told.removesuffix(items[-1]).rstrip()}"


def _fillers(
    pool: Sequence[str], used: Sequence[str], start: int, step: int, count: int
) -> list[str]:
    """`count` different words that are not in `used`; each (start, step) gives another list."""
    free = [word for word in pool if word not in used]
    rest = free[start + 1 :] + free[:start]
    return [free[start], *(rest[(step + i) % len(rest)] for i in range(count - 1))]


@cache
def _triples(pool: Sequence[str]) -> tuple[tuple[str, str, str], ...]:
    return tuple(permutations(pool, 3))


def brackets(w: Words) -> tuple[Template, ...]:
    """`( a [ b ] c` -> ` )`, not ` ]`: nested up to three deep, and in lines of code."""
    shapes = tuple(_shape_template(w, shape) for shape in SHAPES)
    return (*shapes, _list_template(w), _print_template(w))


def _shape_template(w: Words, shape: str) -> Template:
    target = _open_at_end(shape)

    def prompt(kinds: Sequence[str], start: int, step: int) -> str:
        letters = (w.letters[(start + i * step) % len(w.letters)] for i in range(len(shape)))
        return " ".join(f"{b} {x}" for b, x in zip(_kinded(shape, kinds), letters, strict=False))

    def build(choice: tuple[Sequence[str], str], start: int, step: int) -> PromptPair:
        kinds, other = choice
        changed = [*kinds[:target], other, *kinds[target + 1 :]]
        return swap(
            lambda chosen: prompt(chosen, start, step),
            (kinds, changed),
            (f" {BRACKETS[kinds[target]]}", f" {BRACKETS[other]}"),
        )

    def held_out(choice: tuple[Sequence[str], str], start: int, step: int) -> bool:
        return _held_prefix(_kinded(shape, choice[0]))

    choices = [
        (kinds, other)
        for kinds in product(BRACKETS, repeat=shape.count("("))
        for other in BRACKETS
        if other != kinds[target]
    ]
    steps = range(1, len(w.letters)) if len(shape) > 1 else range(1)
    pools = (choices, range(len(w.letters)), steps)
    return Template(case=shape, pools=pools, build=build, held_out=held_out)


def _open_at_end(shape: str) -> int:
    """Which of the shape's opening brackets, counted from 0, the next closing one must match."""
    waiting: list[int] = []
    for i, bracket in enumerate(shape.split()):
        if bracket == "(":
            waiting.append(shape.split()[:i].count("("))
        else:
            waiting.pop()
    return waiting[-1]


def _kinded(shape: str, kinds: Sequence[str]) -> list[str]:
    """The shape with its opening brackets, in order, of these kinds, and the closing to match."""
    left, waiting, out = list(kinds), [], []
    for bracket in shape.split():
        if bracket == "(":
            waiting.append(left.pop(0))
            out.append(waiting[-1])
        else:
            out.append(BRACKETS[waiting.pop()])
    return out


def _held_prefix(brackets: Sequence[str]) -> bool:
    return len(brackets) >= SHORTEST_HELD and held(f"brackets {' '.join(brackets)}")


def _list_template(w: Words) -> Template:
    """`values = { sum ( cells ) , index` -> ` }`."""

    def prompt(outer: str, function: str, names: Sequence[str]) -> str:
        name, inside, after = names
        return f"{name} = {outer} {function} ( {inside} ) , {after}"

    return _code_template(w, "code: a list", prompt, lambda outer: (outer, "(", ")"))


def _print_template(w: Words) -> Template:
    """`total = sum ( [ left , right` -> ` ]`."""

    def prompt(inner: str, function: str, names: Sequence[str]) -> str:
        name, first, second = names
        return f"{name} = {function} ( {inner} {first} , {second}"

    return _code_template(w, "code: a call", prompt, lambda inner: ("(", inner))


def _code_template(
    w: Words,
    case: str,
    prompt: Callable[[str, str, Sequence[str]], str],
    prefix: Callable[[str], Sequence[str]],
) -> Template:
    def build(kinds: tuple[str, str], function: str, names: tuple[str, str, str]) -> PromptPair:
        return swap(
            lambda kind: prompt(kind, function, names),
            kinds,
            [f" {BRACKETS[kind]}" for kind in kinds],
        )

    def held_out(kinds: tuple[str, str], function: str, names: tuple[str, str, str]) -> bool:
        return _held_prefix(prefix(kinds[0]))

    pools = (tuple(permutations(BRACKETS, 2)), w.functions, _triples(w.variables))
    return Template(case=case, pools=pools, build=build, held_out=held_out)


def write_repeat(rng: random.Random) -> str:
    """A sequence of words said twice, in one of the frames, of any length from two to six."""
    first, again, form = rng.choice(tuple(FRAMES.values()))
    items = _chain(rng, rng.choice((form.count("{}"), rng.randint(2, 6))), words().code_words)
    told = " ".join(items) if "," not in form else ", ".join(items)
    if " and " in form:
        told = f"{', '.join(items[:-1])} and {items[-1]}"
    return f"{first} {told}. {again} {told}."


def write_recital(rng: random.Random) -> str:
    """A long list told twice: words, names or trades.

    Long lists make copying pay at many positions at once. Without them the heads that copy
    (for induction, ioi and profession alike) had not formed after three million tokens.
    """
    w = words()
    names = [person.name for person in w.persons]
    trades = [job.singular for job in w.professions]
    opening, again, pool = rng.choice(
        (
            ("The children sang", "Then they sang again", w.code_words),
            ("She counted", "He counted too", w.code_words),
            ("The teacher called", "The next day she called", names),
            ("In the hall sat", "In the garden sat", names),
            ("The town needed a", "The village needed a", trades),
        )
    )
    told = rng.choice((" ", ", ")).join(_chain(rng, rng.randint(6, 14), pool))
    return f"{opening} {told}. {again} {told}."


def write_round(rng: random.Random) -> str:
    """Two to thirty-two words said over and over: names, trades and others mixed.

    Short rounds teach to look back and copy, longer ones can only be followed by finding the
    same word further up.
    """
    w = words()
    pool = [*w.code_words, *(p.name for p in w.persons), *(j.singular for j in w.professions)]
    told = _chain(rng, int(2 ** rng.uniform(1, 5)), pool)
    while held(link(told[-1], told[0])):
        told = _chain(rng, len(told), pool)
    return " ".join(told * max(2, 24 // len(told)))


def _chain(rng: random.Random, length: int, pool: Sequence[str]) -> list[str]:
    """Different words of the pool, no neighbouring two of which are a held-out link."""
    items = [rng.choice(pool)]
    while len(items) < length:
        following = rng.choice(pool)
        if following not in items and not held(link(items[-1], following)):
            items.append(following)
    return items


def write_formula(rng: random.Random) -> str:
    """A bracketed expression in the middle of a sentence."""
    return f"The sign {expression(rng)} {rng.choice(_SEEN)}."


def write_code(rng: random.Random) -> str:
    """Several lines of brackets or code; each ends in a semicolon, so no bracket ends a line.

    The pre-tokenizer glues a line break to the punctuation before it, and ` )` must stay a
    token of its own.
    """
    return "\n".join(f"{_line(rng)} ;" for _ in range(rng.randint(3, 6)))


def _line(rng: random.Random) -> str:
    if rng.random() < 0.65:
        return expression(rng)
    template = rng.choice(_code_templates())
    pair = draw(rng, template)
    if template.case == "code: a list":
        return f"{pair.clean}{pair.answer[0]}"
    return f"{pair.clean}{pair.answer[0]} )"


@cache
def _code_templates() -> tuple[Template, Template]:
    return _list_template(words()), _print_template(words())


def expression(rng: random.Random) -> str:
    """Nested brackets with a letter after each, no prefix of which is held out."""
    while True:
        seen = _nested(rng, 1)
        closings = (i for i, bracket in enumerate(seen) if bracket in BRACKETS.values())
        if not any(_held_prefix(seen[:i]) for i in closings):
            break
    letters = rng.choices(words().letters, k=len(seen) - 1)
    return " ".join(f"{b} {x}" for b, x in zip(seen, letters, strict=False)) + f" {seen[-1]}"


def _nested(rng: random.Random, depth: int) -> list[str]:
    opening = rng.choice(tuple(BRACKETS))
    inside: list[str] = []
    if depth < MAX_DEPTH:
        for _ in range(rng.choices((0, 1, 2), (4, 4, 2))[0]):
            inside += _nested(rng, depth + 1)
    return [opening, *inside, BRACKETS[opening]]


_SEEN = ("was on the wall", "was hard to read", "made no sense to her", "was the answer")

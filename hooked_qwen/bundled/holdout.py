"""Which combinations are never trained on, and how pairs are dealt over templates.

The hold-out is a rule, not a list: a combination is held out when a hash of its key falls in
the lowest `HELD_PERCENT` hundredths. The text generator and the evaluation apply the same rule
from opposite sides.
"""

import random
import zlib
from collections.abc import Iterator, Sequence

from hooked_qwen.families import PromptPair, Template, TooFewPairs

HELD_PERCENT = 12
LOOKED_AT = 20_000


def held(key: str) -> bool:
    """Whether the combination called `key` is kept out of all training text.

    crc32, unlike `hash`, is the same in every process and on every machine.
    """
    return zlib.crc32(key.encode()) % 100 < HELD_PERCENT


def draw(rng: random.Random, template: Template) -> PromptPair:
    """A random pair of the template that training text may contain."""
    while True:
        values = [rng.choice(pool) for pool in template.pools]
        if not template.held_out(*values):
            return template.pair_of(values)


def held_pairs(rng: random.Random, template: Template) -> Iterator[PromptPair]:
    """Pairs of the template that training text never contains, in random order.

    Looks at no more than `LOOKED_AT` combinations: the large templates have millions.
    """
    for index in rng.sample(range(len(template)), min(len(template), LOOKED_AT)):
        values = template.values(index)
        if template.held_out(*values):
            yield template.pair_of(values)


def shares(sizes: Sequence[int], n: int) -> list[int]:
    """Deal `n` out over bins of the given sizes, as evenly as the sizes allow.

    Raises `TooFewPairs` if the bins hold fewer than `n`.
    """
    if n > sum(sizes):
        exist = sum(sizes)
        said = f"{n} pairs were asked for but only {exist} exist: ask for fewer"
        raise TooFewPairs(said, exist)
    dealt = [0] * len(sizes)
    while n:
        room = [i for i, size in enumerate(sizes) if dealt[i] < size]
        each = max(n // len(room), 1)
        for i in room[:n]:
            step = min(each, sizes[i] - dealt[i], n)
            dealt[i] += step
            n -= step
    return dealt

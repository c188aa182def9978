"""What a prompt template is, how prompts are counted off it, and which are never trained on.

A template is a product of pools, one per blank, in which *every* combination builds a
well-formed pair. So the number of prompts is a product, the i-th prompt can be built without
building the others, and asking for too many fails with the exact number.

The hold-out is a rule, not a list: a combination is held out when a hash of its key falls in
the lowest `HELD_PERCENT` hundredths. The text generator and the evaluation apply the same rule
from opposite sides.
"""

import math
import random
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

HELD_PERCENT = 12
LOOKED_AT = 20_000


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A prompt, the same prompt minimally changed, and the two next tokens told apart.

    `answer` is right after `clean`, `wrong` is right after `patch`; both begin with a space.
    """

    clean: str
    patch: str
    answer: str
    wrong: str
    case: str


@dataclass(frozen=True, kw_only=True)
class Template:
    """One sentence form: `build(*values)` makes the pair, `held_out(*values)` bars it from text.

    All pairs of one template have the same number of tokens.
    """

    case: str
    pools: tuple[Sequence[Any], ...]
    build: Callable[..., Pair]
    held_out: Callable[..., bool]

    def __len__(self) -> int:
        return math.prod(len(pool) for pool in self.pools)

    def values(self, index: int) -> tuple[Any, ...]:
        """The `index`-th combination, counting like the digits of a number."""
        chosen = []
        for pool in reversed(self.pools):
            index, place = divmod(index, len(pool))
            chosen.append(pool[place])
        return tuple(reversed(chosen))


def held(key: str) -> bool:
    """Whether the combination called `key` is kept out of all training text.

    crc32, unlike `hash`, is the same in every process and on every machine.
    """
    return zlib.crc32(key.encode()) % 100 < HELD_PERCENT


def draw(rng: random.Random, template: Template) -> Pair:
    """A random pair of the template that training text may contain."""
    while True:
        values = [rng.choice(pool) for pool in template.pools]
        if not template.held_out(*values):
            return template.build(*values)


def held_pairs(rng: random.Random, template: Template) -> Iterator[Pair]:
    """Pairs of the template that training text never contains, in random order.

    Looks at no more than `LOOKED_AT` combinations: the large templates have millions.
    """
    for index in rng.sample(range(len(template)), min(len(template), LOOKED_AT)):
        values = template.values(index)
        if template.held_out(*values):
            yield template.build(*values)


def shares(sizes: Sequence[int], n: int) -> list[int]:
    """Deal `n` out over bins of the given sizes, as evenly as the sizes allow.

    Raises `ValueError` if the bins hold fewer than `n`.
    """
    if n > sum(sizes):
        raise ValueError(f"{n} pairs were asked for but only {sum(sizes)} exist: ask for fewer")
    dealt = [0] * len(sizes)
    while n:
        room = [i for i, size in enumerate(sizes) if dealt[i] < size]
        each = max(n // len(room), 1)
        for i in room[:n]:
            step = min(each, sizes[i] - dealt[i], n)
            dealt[i] += step
            n -= step
    return dealt

"""Prompt forms, and how pairs are counted off them and dealt evenly over a task's cases.

A form is a product of pools, one for each blank, in which every combination builds a
well-formed pair. So the number of pairs is a product, and the i-th pair is built without
building the others.
"""

import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from circuits.prompts import Prompt
from circuits.tasks.choice import Choice

# A form is judged by this many of its pairs, and given up after so many that do not fit.
SAMPLE = 16
MISSES = 2000


@dataclass(frozen=True, kw_only=True)
class Form:
    """One sentence form of one case; `build` takes a value from each pool and makes a pair."""

    case: str
    pools: tuple[Sequence[Any], ...]
    build: Callable[..., Prompt]

    def __len__(self) -> int:
        return math.prod(len(pool) for pool in self.pools)

    def pair(self, index: int) -> Prompt:
        """The pair of the `index`-th combination, counting like the digits of a number."""
        values = []
        for pool in reversed(self.pools):
            index, place = divmod(index, len(pool))
            values.append(pool[place])
        return replace(self.build(*reversed(values)), case=self.case)


class Arrangements(Sequence[Any]):
    """Every way to take `k` different members of a pool in order, none of them built ahead."""

    def __init__(self, pool: Sequence[Any], k: int) -> None:
        self._pool, self._k = pool, k

    def __len__(self) -> int:
        return math.perm(len(self._pool), self._k)

    def __getitem__(self, index: Any) -> tuple[Any, ...]:
        if not 0 <= index < len(self):
            raise IndexError(f"arrangement {index} of {len(self)}")
        left = list(self._pool)
        chosen = []
        for _ in range(self._k):
            index, place = divmod(index, len(left))
            chosen.append(left.pop(place))
        return tuple(chosen)


def pair(
    clean: str, patch: str, answer: str | tuple[str, ...], wrong: str | tuple[str, ...]
) -> Prompt:
    """A prompt pair; one text or several may be right, and one or several wrong."""
    right, other = ((a,) if isinstance(a, str) else a for a in (answer, wrong))
    return Prompt(clean=clean, patch=patch, answer=right, wrong=other)


def deal(forms: Sequence[Form], n: int, choice: Choice, rng: random.Random) -> list[Prompt]:
    """`n` different pairs of one token count, as many from each form as from every other.

    Forms whose pairs have another token count than most are left out. Raises `ValueError` with
    the number of pairs there are, and the lists of which the tokenizer knows only a part.
    """
    length = _common_length(forms, choice, rng)
    kept = [f for f in forms if any(fits(p, length, choice) for p in _sample(f, SAMPLE, rng))]
    shares = [n // len(kept) + (i < n % len(kept)) for i in range(len(kept))]
    found = [_draw(f, k, length, choice, rng) for f, k in zip(kept, shares, strict=True)]
    sizes = [len(f) if len(p) == k else len(p) for f, p, k in zip(kept, found, shares, strict=True)]
    if not kept or any(len(p) < k for p, k in zip(found, shares, strict=True)):
        raise ValueError(_too_few(n, sizes, choice))
    prompts = [prompt for pairs in found for prompt in pairs]
    rng.shuffle(prompts)
    return prompts


def _too_few(n: int, sizes: Sequence[int], choice: Choice) -> str:
    """What to say when forms of these sizes cannot be dealt `n` pairs evenly."""
    least = min(sizes, default=0)
    exist = len(sizes) * least + sum(size > least for size in sizes)
    why = ""
    if choice.shortages:
        why = f": the tokenizer knows only {', '.join(choice.shortages)} as one token"
    elif not sizes:
        why = ": no answer is one token of this tokenizer where the prompt ends"
    asked = f"{n} pairs were asked for but the {choice.split} split has only {exist}{why}"
    return f"{asked}; ask for {'fewer' if exist else 'another task'}"


def fits(prompt: Prompt, length: int, choice: Choice) -> bool:
    """Whether clean and patch have `length` tokens and every answer is one more to either."""
    texts = (prompt.clean, prompt.patch or "")
    return all(choice.length(text) == length for text in texts) and all(
        choice.continues(text, answer)
        for text in texts
        for answer in (*prompt.answer, *prompt.wrong)
    )


def _common_length(forms: Sequence[Form], choice: Choice, rng: random.Random) -> int:
    lengths = Counter(
        choice.length(prompt.clean) for form in forms for prompt in _sample(form, SAMPLE, rng)
    )
    return lengths.most_common(1)[0][0] if lengths else 0


def _sample(form: Form, n: int, rng: random.Random) -> Iterator[Prompt]:
    return map(form.pair, rng.sample(range(len(form)), min(n, len(form))))


def _draw(form: Form, n: int, length: int, choice: Choice, rng: random.Random) -> list[Prompt]:
    """Up to `n` pairs of the form that fit, fewer only when it has no more."""
    found: list[Prompt] = []
    for prompt in _sample(form, 2 * n + MISSES, rng):
        if len(found) == n:
            break
        if fits(prompt, length, choice):
            found.append(prompt)
    return found

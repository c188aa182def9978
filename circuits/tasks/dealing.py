"""How pairs are dealt evenly over a task's templates, of those that fit a tokenizer."""

import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from circuits.prompt_files import Prompt
from circuits.tasks.choice import Choice
from hooked_qwen.families import PromptPair, Template, TooFewPairs

# A template is judged by this many of its pairs, and given up after so many that do not fit.
SAMPLE = 16
MISSES = 2000


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


def deal(
    templates: Sequence[Template], n: int, choice: Choice, rng: random.Random
) -> list[PromptPair]:
    """`n` different pairs of one token count, as many from each template as from every other.

    Templates whose pairs have another token count than most are left out. Raises `TooFewPairs` with
    the number of pairs there are, and the lists of which the tokenizer knows only a part.
    """
    length = _common_length(templates, choice, rng)
    kept = [t for t in templates if any(fits(p, length, choice) for p in _sample(t, SAMPLE, rng))]
    shares = [n // len(kept) + (i < n % len(kept)) for i in range(len(kept))]
    found = [_draw(t, k, length, choice, rng) for t, k in zip(kept, shares, strict=True)]
    sizes = [len(t) if len(p) == k else len(p) for t, p, k in zip(kept, found, shares, strict=True)]
    if not kept or any(len(p) < k for p, k in zip(found, shares, strict=True)):
        raise _too_few(n, sizes, choice)
    prompts = [prompt for pairs in found for prompt in pairs]
    rng.shuffle(prompts)
    return prompts


def _too_few(n: int, sizes: Sequence[int], choice: Choice) -> TooFewPairs:
    """What to say when templates of these sizes cannot be dealt `n` pairs evenly."""
    least = min(sizes, default=0)
    exist = len(sizes) * least + sum(size > least for size in sizes)
    why = ""
    if choice.shortages:
        why = f": the tokenizer knows only {', '.join(choice.shortages)} as one token"
    elif not sizes:
        why = ": no answer is one token of this tokenizer where the prompt ends"
    asked = f"{n} pairs were asked for but the {choice.split} split has only {exist}{why}"
    return TooFewPairs(f"{asked}; ask for {'fewer' if exist else 'another task'}", exist)


def fits(prompt: PromptPair | Prompt, length: int, choice: Choice) -> bool:
    """Whether clean and patch have `length` tokens and every answer is one more to either."""
    texts = (prompt.clean, prompt.patch or "")
    return all(choice.length(text) == length for text in texts) and all(
        choice.continues(text, answer)
        for text in texts
        for answer in (*prompt.answer, *prompt.wrong)
    )


def _common_length(templates: Sequence[Template], choice: Choice, rng: random.Random) -> int:
    lengths = Counter(
        choice.length(prompt.clean)
        for template in templates
        for prompt in _sample(template, SAMPLE, rng)
    )
    return lengths.most_common(1)[0][0] if lengths else 0


def _sample(template: Template, n: int, rng: random.Random) -> Iterator[PromptPair]:
    return map(template.pair, rng.sample(range(len(template)), min(n, len(template))))


def _draw(
    template: Template, n: int, length: int, choice: Choice, rng: random.Random
) -> list[PromptPair]:
    """Up to `n` pairs of the template that fit, fewer only when it has no more."""
    found: list[PromptPair] = []
    for prompt in _sample(template, 2 * n + MISSES, rng):
        if len(found) == n:
            break
        if fits(prompt, length, choice):
            found.append(prompt)
    return found

"""Which contexts of a feature an explanation is made from, and which it is judged on.

Contexts in which the feature is on, each text once, are sorted by the largest activation in them
and cut into `quantiles` equal parts. Of each part some are shown to who explains, others held out:

    detection   held-out contexts, and as many in which the feature is nowhere on
    fuzzing     the same held-out contexts with the tokens marked at which it is on, and as many
                other held-out ones with as many tokens marked at which it is not

A token is marked from `threshold` of the largest activation in its context on.

Source: Paulo et al. 2024, arXiv:2410.13928 (detection and fuzzing, 32 tokens, quantiles).
Differs: nothing that was shown is judged on, nor what reads the same; wrong marks stand in texts
that the feature is on in, so that a judge of marks cannot do with a judgement of the text.

Axes: `pos` tokens of a context.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.config_checks import check_at_least
from saes.scope.contexts import Contexts

LEAST = 10
"Contexts that a feature is on in, below which it is not described."


@dataclass(frozen=True, kw_only=True)
class SplitConfig:
    """How many contexts are for what."""

    shown: int = 15
    "contexts that who explains sees"
    judged: int = 10
    "held-out contexts that the feature is on in, of detection; all others are as many"
    quantiles: int = 5
    threshold: float = 0.3
    "of the largest activation in a context: from there on a token is marked"
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, self, "shown", "judged", "quantiles")
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold is {self.threshold}: expected a share, over 0, at most 1")


@dataclass(frozen=True)
class Passage:
    """A context, what a feature does in it, and which of its tokens are marked."""

    tokens: tuple[int, ...]
    values: Float[Tensor, " pos"]
    marked: Bool[Tensor, " pos"]
    quantile: int | None
    "by the largest activation, 0 the strongest; None where it is nowhere on"


@dataclass(frozen=True)
class PassageSplit:
    """The passages of one feature."""

    shown: tuple[Passage, ...]
    "strongest first"
    on: tuple[Passage, ...]
    "held out, marked where it is on"
    off: tuple[Passage, ...]
    "held out: nowhere on, nothing marked"
    wrong: tuple[Passage, ...]
    "held out: on, and marked where it is not"


def split_contexts(contexts: Contexts, feature: int, config: SplitConfig) -> PassageSplit | None:
    """The passages of a feature; None where it is on in fewer than `LEAST` contexts that differ."""
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + feature)
    on, values = contexts.of(feature)
    own = _once(contexts.tokens[on])
    if len(own) < LEAST or len(on) == len(contexts):
        return None
    peak = values[own].amax(1)
    own = own[peak.argsort(descending=True, stable=True)]
    shown, first, second = [], [], []
    for quantile, part in enumerate(own.tensor_split(config.quantiles)):
        a, b, c = _dealt(part, quantile, config, generator)
        for taken, of in ((a, shown), (b, first), (c, second)):
            of += [
                _passage(contexts.tokens[on[i]], values[i], config.threshold, quantile)
                for i in sorted(taken)
            ]
    wrong = [w for p in second if (w := _mismarked(p, generator)) is not None]
    off = _off(contexts, on, len(first), generator)
    return PassageSplit(tuple(_strongest_first(shown)), tuple(first), tuple(off), tuple(wrong))


def _once(tokens: Int[Tensor, "on pos"]) -> Int[Tensor, " different"]:
    """The place of each text that differs from all before it."""
    seen: dict[tuple[int, ...], int] = {}
    for i, row in enumerate(tokens.tolist()):
        seen.setdefault(tuple(row), i)
    return torch.tensor(list(seen.values()), dtype=torch.long)


def _dealt(
    part: Int[Tensor, " some"], quantile: int, config: SplitConfig, generator: torch.Generator
) -> tuple[list[int], list[int], list[int]]:
    """Of one quantile, what is shown, held out, and held out to be marked wrong."""
    wanted = [_share(n, quantile, config) for n in (config.shown, config.judged, config.judged)]
    n, total = len(part), sum(wanted)
    if n < total:
        # Too few for all: each gets its share, what is held out first.
        held = round(n * (wanted[1] + wanted[2]) / max(1, total))
        wanted = [n - held, held - held // 2, held // 2]
    order = part[torch.randperm(n, generator=generator)].tolist()
    a, b = wanted[0], wanted[0] + wanted[1]
    return order[:a], order[a:b], order[b : b + wanted[2]]


def _share(n: int, quantile: int, config: SplitConfig) -> int:
    """What one of the quantiles has of `n` things: as even as can be, the strongest more."""
    return n // config.quantiles + (quantile < n % config.quantiles)


def _passage(
    tokens: Int[Tensor, " pos"], values: Float[Tensor, " pos"], threshold: float, quantile: int
) -> Passage:
    marked = (values > 0) & (values >= threshold * values.max())
    return Passage(tuple(tokens.tolist()), values, marked, quantile)


def _mismarked(passage: Passage, generator: torch.Generator) -> Passage | None:
    """The passage with as many other tokens marked; None where the feature is on at most of it."""
    off = (passage.values == 0).nonzero().flatten()
    n = int(passage.marked.sum())
    if len(off) < n:
        return None
    chosen = off[torch.randperm(len(off), generator=generator)[:n]]
    marked = torch.zeros_like(passage.marked)
    marked[chosen] = True
    return Passage(passage.tokens, passage.values, marked, passage.quantile)


def _off(
    contexts: Contexts, on: Int[Tensor, " on"], count: int, generator: torch.Generator
) -> list[Passage]:
    """Contexts in which the feature is nowhere on, at random."""
    free = torch.ones(len(contexts), dtype=torch.bool)
    free[on] = False
    others = free.nonzero().flatten()
    chosen = others[torch.randperm(len(others), generator=generator)[:count]]
    length = contexts.tokens.shape[1]
    nothing = torch.zeros(length), torch.zeros(length, dtype=torch.bool)
    return [Passage(tuple(row.tolist()), *nothing, None) for row in contexts.tokens[chosen]]


def _strongest_first(passages: Sequence[Passage]) -> list[Passage]:
    return sorted(passages, key=lambda p: -float(p.values.max()))

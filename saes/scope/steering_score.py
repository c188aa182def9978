"""How well something steers: the concept and fluency of what it makes a model write, in one number.

    fluency = min(1, perplexity of the plain text / of this one) (1 - repetition)
    score   = 2 c f / (c + f)            c the concept's score cut to 0..1, f fluency; 0 where both

Perplexities are of the texts that are written after one prompt, under the model as it is. The
harmonic mean is small where either is: writing what is asked for and falling apart counts as
little as writing well about something else.

The strength is chosen with care: the prompts are halved, each half is judged at what does best in
the other. Chosen and judged on the same prompts, whatever has the most strengths to choose from
would look best.

Source: harmonic mean of concept and fluency, factor chosen on half of the prompts, arXiv:2501.17148
(AxBench).
Differs: scores are computed, not judged by a language model, and both halves are judged.

Axes: `arms` things to choose from, such as features times strengths; `prompts`.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Goal = Literal["more", "less"]
LEAST = 4
"Prompts that can be halved; with fewer the choice is made on those that it is judged on."


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOutChoice:
    """What is chosen among arms, judged on prompts that did not choose it."""

    arms: tuple[int, ...]
    "chosen on the first half, on the second; only one with few prompts"
    arm_of: tuple[int, ...]
    "that each prompt is judged at"
    score: Float[Tensor, " prompts"]


def fluency(
    nats: Float[Tensor, " prompts"],
    plain_nats: Float[Tensor, " prompts"],
    repetition: Float[Tensor, " prompts"],
) -> Float[Tensor, " prompts"]:
    """Fluency of texts by their nats per token and the share of n-grams repeated; 0 of no text.

    Where the model as it is writes nothing, a text is held against the mean of the others.
    """
    usual = plain_nats.nanmean().nan_to_num(0.0)
    worse = (nats - plain_nats.nan_to_num(float(usual))).clamp_min(0)
    return ((-worse).exp() * (1 - repetition)).nan_to_num(0.0)


def wanted(concept: Float[Tensor, "*any"], goal: Goal) -> Float[Tensor, "*any"]:
    """The share of what is asked for: of the concept, or of its absence.

    A text of which nothing can be told (NaN) is neither with the concept nor without it: 0.
    """
    cut = concept.clamp(0, 1)
    return (cut if goal == "more" else 1 - cut).nan_to_num(0.0)


def score(concept: Float[Tensor, "*any"], fluent: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
    """The harmonic mean of both, each 0 to 1."""
    return 2 * concept * fluent / (concept + fluent).clamp_min(1e-12)


def chosen(scores: Float[Tensor, "arms prompts"]) -> HeldOutChoice:
    """The arm with the best mean, of the first of equals: chosen on one half, judged on the other.

    The halves are the prompts with even and those with odd numbers.
    """
    n = scores.shape[1]
    if n < LEAST:
        best = _best(scores)
        return HeldOutChoice(arms=(best,), arm_of=(best,) * n, score=scores[best])
    by_even, by_odd = _best(scores[:, ::2]), _best(scores[:, 1::2])
    arm_of = tuple(by_odd if i % 2 == 0 else by_even for i in range(n))
    return HeldOutChoice(
        arms=(by_even, by_odd), arm_of=arm_of, score=scores[torch.tensor(arm_of), torch.arange(n)]
    )


def _best(scores: Float[Tensor, "arms prompts"]) -> int:
    mean = scores.mean(1)
    # What is equal but for rounding counts as equal.
    return int((mean >= mean.max() - 1e-12).nonzero()[0, 0])

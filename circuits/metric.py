"""What a circuit is a circuit *of*: a number for each prompt, computed from its last logits.

    logit-difference   mean logit of the right answers - mean logit of the wrong ones
                       (of the whole vocabulary, for a prompt without wrong answers)
    log-probability    log of the summed probability of the right answers
    kl                 sum over tokens of p (log p - log q), p of the clean run, q of the run

Units: logits, and nats for the last two. A divergence is 0 on the clean run and so is its
gradient: it can be integrated and measured, but one gradient at the clean run says nothing of it.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

Logits = Float[Tensor, "batch vocabulary"]
Metric = Callable[[Logits, Int[Tensor, " batch"]], Float[Tensor, " batch"]]
"Takes logits after the last token and the index of each row's prompt in the prompt set."
MetricName = Literal["logit-difference", "log-probability", "kl"]
Ids = Sequence[Sequence[int]]


def logit_difference(
    answers: Ids, wrongs: Ids, *, weights: Sequence[Sequence[float]] | None = None
) -> Metric:
    """Mean logit of the right answers minus mean logit of the wrong ones.

        m = sum over a of p_a logit[a] - mean over w of logit[w]      p_a = 1 / number of answers

    or p_a = `weights`, which add up to 1. Where a prompt has no wrong answer, the mean is over
    the whole vocabulary. Units: logits. Positive means that the model prefers the right answer.
    """
    shares = weights or [[1 / len(right)] * len(right) for right in answers]
    rows = [[*right, *wrong] for right, wrong in zip(answers, wrongs, strict=True)]
    signed = [
        [*share, *(-1 / len(wrong) for _ in wrong)]
        for share, wrong in zip(shares, wrongs, strict=True)
    ]
    index, weight = _padded(rows), _padded(signed)
    unopposed = torch.tensor([not wrong for wrong in wrongs])

    def metric(logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        chosen = logits.gather(1, index[rows].to(logits.device))
        difference = (chosen * weight[rows].to(chosen)).sum(-1)
        alone = unopposed[rows].to(logits.device)
        return difference - alone * logits.mean(-1) if alone.any() else difference

    return metric


def log_probability(answers: Ids) -> Metric:
    """Logarithm of the probability that the next token is one of the right answers, in nats."""
    index = _padded(answers)
    real = _padded([[True] * len(right) for right in answers])

    def metric(logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        chosen = logits.log_softmax(-1).gather(1, index[rows].to(logits.device))
        return chosen.masked_fill(~real[rows].to(logits.device), -torch.inf).logsumexp(-1)

    return metric


def divergence(clean: Float[Tensor, "prompts vocabulary"]) -> Metric:
    """KL divergence from each prompt's `clean` next-token distribution, in nats; 0 where equal."""

    def metric(logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        p, q = clean[rows].to(logits).log_softmax(-1), logits.log_softmax(-1)
        return F.kl_div(q, p, reduction="none", log_target=True).sum(-1)

    return metric


def readout(weight: Float[Tensor, " vocabulary"], bias: float = 0.0) -> Metric:
    """The logit of a linear probe that reads the next-token logits."""
    return lambda logits, rows: logits @ weight.to(logits) + bias


def _padded(rows: Sequence[Sequence[int | float]]) -> Shaped[Tensor, "rows longest"]:
    """Rows of numbers, filled up with zeros on the right."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)

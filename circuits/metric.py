"""What a circuit is a circuit *of*: a number for each prompt, computed from its last logits.

    logit-difference   mean logit of the right answers - mean logit of the wrong ones
                       (of the whole vocabulary, for a prompt without wrong answers)
    log-probability    log of the summed probability of the right answers
    kl                 sum over tokens of p (log p - log q), p of the clean run, q of the run

Units: logits, and nats for the last two. A divergence is 0 on the clean run and so is its
gradient: it can be integrated and measured, but one gradient at the clean run says nothing of it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import unembed

Logits = Float[Tensor, "batch vocabulary"]
Metric = Callable[[Logits, Int[Tensor, " batch"]], Float[Tensor, " batch"]]
"Takes logits after the last token and the index of each row's prompt in the prompt set."
MetricName = Literal["logit-difference", "log-probability", "kl"]
Ids = Sequence[Sequence[int]]


@dataclass(frozen=True)
class LogitDifference:
    """A weighted sum of logits for each prompt, less the vocabulary's mean where none is wrong."""

    index: Int[Tensor, "prompts named"]
    weight: Float[Tensor, "prompts named"]
    unopposed: Bool[Tensor, " prompts"]

    def __call__(self, logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        difference = self.of_named(logits, self.index[rows], rows)
        alone = self.unopposed[rows].to(logits.device)
        return difference - alone * logits.mean(-1) if alone.any() else difference

    def of_named(
        self,
        logits: Float[Tensor, "batch some"],
        places: Int[Tensor, "batch named"],
        rows: Int[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """The weighted sum, where `places` says where in `logits` each row's tokens are."""
        chosen = logits.gather(1, places.to(logits.device))
        return (chosen * self.weight[rows].to(chosen)).sum(-1)


def logit_difference(
    answers: Ids, wrongs: Ids, *, weights: Sequence[Sequence[float]] | None = None
) -> LogitDifference:
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
    unopposed = torch.tensor([not wrong for wrong in wrongs])
    return LogitDifference(_padded(rows), _padded(signed), unopposed)


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


def metric_at(
    model: TransformerBridge,
    last: Float[Tensor, "batch 1 d_model"],
    metric: Metric,
    rows: Int[Tensor, " batch"],
) -> Float[Tensor, " batch"]:
    """The metric of prompts `rows` when `last` leaves the last block at the last token.

    A logit difference unembeds the tokens that it names and no others.
    """
    if isinstance(metric, LogitDifference) and not metric.unopposed[rows].any():
        tokens, places = metric.index[rows].unique(return_inverse=True)
        return metric.of_named(unembed(model, last, tokens).squeeze(1), places, rows)
    return metric(unembed(model, last).squeeze(1), rows)


def _padded(rows: Sequence[Sequence[int | float]]) -> Shaped[Tensor, "rows longest"]:
    """Rows of numbers, filled up with zeros on the right."""
    return pad_sequence([torch.tensor(row) for row in rows], batch_first=True)

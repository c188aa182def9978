"""The metric of a prompt set, with the model's own answers where a prompt names none."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.metric import (
    LogitDifference,
    Metric,
    MetricName,
    divergence,
    log_probability,
    logit_difference,
)
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import last_logits, require_in_vocabulary
from hooked_qwen.tokens import token_strings

SHARE, MOST = 0.95, 10
"A model's own answers: the fewest tokens that have this probability together, and no more."
BATCH = 32


def metric_of(name: MetricName, model: TransformerBridge, prompts: EncodedPrompts) -> Metric:
    """The metric called `name` on `prompts`; `kl` runs the clean prompts once."""
    named = [i for ids in (*prompts.answer_ids, *prompts.wrong_ids) for i in ids]
    require_in_vocabulary(model, torch.tensor(named, dtype=torch.int64))
    if name == "kl":
        return divergence(clean_logits(model, prompts))
    if name == "log-probability":
        return log_probability(prompts.answer_ids)
    return preference_of(prompts)


def preference_of(prompts: EncodedPrompts) -> LogitDifference:
    """The logit difference: positive where the right answers are preferred."""
    return logit_difference(prompts.answer_ids, prompts.wrong_ids, weights=prompts.answer_weights)


def with_own_answers(model: TransformerBridge, prompts: EncodedPrompts) -> EncodedPrompts:
    """Where a prompt names no answer, the model's own: its likeliest next tokens.

    They count by their probability, as the fewest that reach 95 %, at most 10.
    """
    if all(prompts.answer_ids):
        return prompts
    logits = clean_logits(model, prompts)
    ids, weights, texts = [], [], []
    for prompt, given, row in zip(prompts.prompts, prompts.answer_ids, logits, strict=True):
        chosen, shares = (list(given), [1 / len(given)] * len(given)) if given else likeliest(row)
        ids.append(tuple(chosen))
        weights.append(tuple(shares))
        texts.append(replace(prompt, answer=tuple(token_strings(model.tokenizer, chosen))))
    return replace(
        prompts,
        prompts=tuple(texts),
        answer_ids=tuple(ids),
        answer_weights=tuple(weights),
    )


def likeliest(logits: Float[Tensor, " vocabulary"]) -> tuple[list[int], list[float]]:
    """The fewest tokens that have 95 % of the probability, at most 10, and their shares of it.

    Source: Ameisen et al. 2025, Circuit Tracing.
    """
    p, tokens = logits.double().softmax(-1).topk(min(MOST, len(logits)))
    n = min(int((p.cumsum(0) < SHARE).sum()) + 1, len(p))
    return tokens[:n].tolist(), (p[:n] / p[:n].sum()).tolist()


@torch.no_grad()
def clean_logits(
    model: TransformerBridge, prompts: EncodedPrompts
) -> Float[Tensor, "prompts vocabulary"]:
    """Logits after the last token of every clean prompt."""
    parts: Sequence[Tensor] = torch.arange(len(prompts)).split(BATCH)
    return torch.cat([last_logits(model, prompts.clean.rows(rows)) for rows in parts])

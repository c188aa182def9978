"""The metric of a prompt set, with the model's own answers where a prompt names none."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.metrics.bound import bind_feature, bind_readout
from circuits.metrics.metric import (
    LogitDifference,
    LogitMetric,
    Logits,
    Metric,
    divergence,
    log_probability,
    logit_difference,
    probability_difference,
)
from circuits.metrics.readout import (
    FEATURE,
    PYTHON,
    MetricChoice,
    Readout,
    metric_name,
)
from circuits.prompts import EncodedPrompts, Positions
from hooked_qwen.forward import last_logits, require_in_vocabulary
from hooked_qwen.tokens import token_strings
from saes.suite import Suite

SHARE, MOST = 0.95, 10
"A model's own answers: the fewest tokens that have this probability together, and no more."
BATCH = 32


def metric_of(
    chosen: MetricChoice,
    model: TransformerBridge,
    prompts: EncodedPrompts,
    suite: Suite | None = None,
    *,
    positions: Positions = "keep",
) -> Metric:
    """The metric `chosen` on `prompts`; `kl` and metrics of a site run the prompts once.

    A metric of a site needs the suite, and how its position is counted.

    Raises `ValueError` for a metric that a run only names.
    """
    if isinstance(chosen, Readout) or (isinstance(chosen, str) and chosen.startswith(FEATURE)):
        if suite is None:
            raise ValueError(f"the metric {metric_name(chosen)} is of a site: give the suite too")
        if isinstance(chosen, Readout):
            return bind_readout(chosen, model, suite, prompts, positions)
        return bind_feature(chosen, model, suite, prompts, positions)
    named = [i for ids in (*prompts.answer_ids, *prompts.wrong_ids) for i in ids]
    require_in_vocabulary(model, torch.tensor(named, dtype=torch.int64))
    if chosen == "kl":
        return divergence(clean_logits(model, prompts))
    if chosen == "log-probability":
        return log_probability(prompts.answer_ids)
    if chosen == "probability-difference":
        return probability_difference(prompts.answer_ids, prompts.wrong_ids)
    if chosen == "logit-difference":
        return preference_of(prompts)
    if isinstance(chosen, str):
        raise ValueError(
            f"this run's metric is {chosen.removeprefix(PYTHON)}, a Python function that the run "
            "does not hold: go on from Python, with DiscoverConfig(metric=...) or metric=..."
        )
    return chosen if isinstance(chosen, LogitDifference) else _checked(chosen)


def _checked(metric: LogitMetric) -> LogitMetric:
    """A metric of the user's own, held to what a metric is."""
    name = metric_name(metric).removeprefix(PYTHON)

    def checked(logits: Logits, rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        value = metric(logits, rows)
        if not isinstance(value, Tensor) or value.shape != rows.shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"the metric {name} gave {found} for logits of shape {tuple(logits.shape)}: "
                f"expected a tensor of shape ({len(rows)},), a number for each prompt"
            )
        if logits.requires_grad and not value.requires_grad:
            raise ValueError(
                f"the metric {name} has no gradient: write it in torch operations on the logits"
            )
        return value

    return checked


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
    ids, weights, texts, answers = [], [], [], []
    for prompt, given, row in zip(prompts.prompts, prompts.answer_ids, logits, strict=True):
        chosen, shares = (list(given), [1 / len(given)] * len(given)) if given else likeliest(row)
        ids.append(tuple(chosen))
        weights.append(tuple(shares))
        own = tuple(token_strings(model.tokenizer, chosen))
        answers.append(own)
        texts.append(prompt if given else replace(prompt, answer=own))
    return replace(
        prompts,
        prompts=tuple(texts),
        answer_ids=tuple(ids),
        answer_weights=tuple(weights),
        answer_texts=tuple(answers),
        own=frozenset(i for i, given in enumerate(prompts.answer_ids) if not given),
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

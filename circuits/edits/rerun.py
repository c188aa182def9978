"""Run prompts again under an edit, beside the model as it is.

Every number stands before and after, and every mean has a 95 % bootstrap interval. A text is run
again by `circuits.edits.rerun_text`, a generation by `circuits.edits.continuations`.

Axes: `batch` prompts of one pass.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.edits.edited_model import Edited
from circuits.edits.figures import mean_of
from circuits.edits.held_run import Fired, has_transcoders, held_edits
from circuits.edits.patch import patch_values
from circuits.edits.rerun_text import rerun_text
from circuits.graph import rounded
from circuits.metrics.answers import preference_of
from circuits.metrics.metric import Metric, SiteMetric, reading
from circuits.metrics.readout import metric_name
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import last_logits
from hooked_qwen.tokens import token_strings
from saes.edit_file import Edit
from saes.edited_pass import Patch
from transcoders.interventions import THE_GRAPH, THE_MODEL, Mode

__all__ = [
    "Edited",
    "PromptOutcomes",
    "require_fires",
    "rerun_prompts",
    "rerun_text",
    "run_prompts",
]


def _under(edited: Edited | None, patch: Patch | None = None) -> AbstractContextManager[None]:
    return nullcontext() if edited is None else edited.applied(patch)


@dataclass(frozen=True, kw_only=True)
class PromptOutcomes:
    """What a run of a prompt set gave, prompt by prompt, on the CPU."""

    metric: Float[Tensor, " prompts"]
    preference: Float[Tensor, " prompts"]
    "mean logit of the right answers less that of the wrong"
    log_probs: Float[Tensor, "prompts vocabulary"]

    def kl_to(self, other: "PromptOutcomes") -> Float[Tensor, " prompts"]:
        """KL divergence from this run's next-token distribution to another's, in nats."""
        p, q = self.log_probs.double(), other.log_probs.double()
        return (p.exp() * (p - q)).sum(-1)


@torch.no_grad()
def run_prompts(
    model: TransformerBridge,
    prompts: EncodedPrompts,
    metric: Metric,
    edited: Edited | None = None,
    *,
    batch_size: int = 32,
    patch: Callable[[Int[Tensor, " batch"]], Patch] | None = None,
) -> PromptOutcomes:
    """Run the clean prompts, under an edit or as the model is.

    `patch` gives what nodes are on the patch prompts of some rows, for an edit that goes there.
    Raises `RuntimeError` for an edit that changes nothing in any of them, unless it need not.
    """
    preference = preference_of(prompts)

    def outcome(rows: Int[Tensor, " batch"]) -> PromptOutcomes:
        with reading(model, metric) as read:
            logits = last_logits(model, prompts.clean.rows(rows))
        rows = rows.to(logits.device)
        value = read(None, rows) if isinstance(metric, SiteMetric) else metric(logits, rows)
        return PromptOutcomes(
            metric=value.double().cpu(),
            preference=preference(logits, rows).double().cpu(),
            log_probs=logits.log_softmax(-1).cpu(),
        )

    groups = torch.arange(len(prompts)).split(batch_size)
    parts: list[PromptOutcomes] = []
    if patch is None:
        with _under(edited):
            parts = [outcome(rows) for rows in groups]
    else:
        for rows in groups:
            with _under(edited, patch(rows)):
                parts.append(outcome(rows))
    return PromptOutcomes(
        metric=torch.cat([part.metric for part in parts]),
        preference=torch.cat([part.preference for part in parts]),
        log_probs=torch.cat([part.log_probs for part in parts]),
    )


def _run_edited(analysis: Analysis, edited: Edited) -> PromptOutcomes:
    """The prompts of an analysis under an edit."""
    edit = edited.edit
    return run_prompts(
        analysis.model,
        analysis.prompts,
        analysis.metric,
        edited,
        batch_size=analysis.config.batch_size,
        patch=(lambda rows: patch_values(analysis, edit, rows)) if edited.needs_patch else None,
    )


def require_fires(analysis: Analysis, edit: Edit) -> None:
    """Raise `RuntimeError` for an edit that changes nothing in any prompt of an analysis.

    It says what came nearest.
    """
    _run_edited(analysis, Edited(model=analysis.model, suite=analysis.suite, edit=edit))


def rerun_prompts(analysis: Analysis, edit: Edit, mode: Mode = THE_MODEL) -> dict[str, Any]:
    """The prompts of an analysis before and after an edit: metric, preferred answer, KL.

        rerun_prompts(analysis, edit)["change"]

    With part of the model held (`mode`) also what the replacement model predicts, where there are
    transcoders. Raises `ValueError` for an edit of other dictionaries, and `RuntimeError` for one
    that changes nothing in any prompt.
    """
    model, prompts, held = analysis.model, analysis.prompts, {}
    if mode == THE_MODEL:
        edited = Edited(model=model, suite=analysis.suite, edit=edit)
        size = analysis.config.batch_size
        before = run_prompts(model, prompts, analysis.metric, batch_size=size)
        after = _run_edited(analysis, edited)
    else:
        before, after = _run_held(analysis, edit, mode)
        held = _held_record(analysis, edit, mode)
    kl = before.kl_to(after)
    accuracy = [(o.preference > 0).double() for o in (before, after)]
    return {
        "n": len(prompts),
        "metric": metric_name(analysis.config.metric),
        "before": mean_of(before.metric),
        "after": mean_of(after.metric),
        "change": mean_of(after.metric - before.metric),
        "accuracy_before": mean_of(accuracy[0]),
        "accuracy_after": mean_of(accuracy[1]),
        "kl": mean_of(kl),
        **held,
        "prompts": _prompt_rows(analysis, before, after, kl),
    }


@torch.no_grad()
def _run_held(analysis: Analysis, edit: Edit, mode: Mode) -> tuple[PromptOutcomes, PromptOutcomes]:
    """The prompts as they are and under an edit, one by one, with part of the model held."""
    preference, fired = preference_of(analysis.prompts), Fired([edit])
    parts: list[list[Tensor]] = []
    for number in range(len(analysis.prompts)):
        run = held_edits(analysis, number, [edit], mode, fired)
        which = torch.full((2,), number, device=run.logits.device)
        preferred = preference(run.logits, which)
        log_probs = run.logits.log_softmax(-1).cpu()
        parts.append([run.metric.double().cpu(), preferred.double().cpu(), log_probs])
    fired.require(analysis.model.tokenizer)
    metric, preferred, log_probs = (torch.stack(each, 1) for each in zip(*parts, strict=True))
    before, after = (
        PromptOutcomes(metric=metric[i], preference=preferred[i], log_probs=log_probs[i])
        for i in range(2)
    )
    return before, after


def _held_record(analysis: Analysis, edit: Edit, mode: Mode) -> dict[str, Any]:
    """What was held, and what the replacement model predicts."""
    record: dict[str, Any] = {"attention": mode.attention, "mlps": mode.mlps}
    if has_transcoders(analysis):
        changes = [
            held_edits(analysis, number, [edit], THE_GRAPH, Fired([edit])).change
            for number in range(len(analysis.prompts))
        ]
        record["predicted"] = mean_of(torch.cat(changes))
    return record


def _prompt_rows(
    analysis: Analysis, before: PromptOutcomes, after: PromptOutcomes, kl: Tensor
) -> list[dict[str, Any]]:
    prompts, tokenizer = analysis.prompts, analysis.model.tokenizer
    rows = []
    for i, prompt in enumerate(prompts.prompts):
        ids = [*prompts.answer_ids[i], *prompts.wrong_ids[i]]
        preferred, likeliest = [], []
        for outcome in (before, after):
            log_probs = outcome.log_probs[i]
            preferred.append(ids[int(log_probs[ids].argmax())])
            likeliest.append(int(log_probs.argmax()))
        told = token_strings(tokenizer, [*preferred, *likeliest])
        rows.append(
            {
                "clean": prompt.clean,
                "answer": prompt.answer[0],
                "wrong": prompt.wrong[0] if prompt.wrong else None,
                "before": rounded(float(before.metric[i])),
                "after": rounded(float(after.metric[i])),
                "kl": rounded(float(kl[i])),
                "preferred_before": told[0],
                "preferred_after": told[1],
                "likeliest_before": told[2],
                "likeliest_after": told[3],
            }
        )
    return rows

"""Run prompts or a text again under an edit, beside the model as it is.

Every number stands before and after, and every mean has a 95 % bootstrap interval: over prompts,
or over blocks of text.

Axes: `batch` prompts of one pass, `blocks` of text, `predicted` the tokens after a block's first.
"""

import math
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.edits.patch import patch_values
from circuits.graph import rounded
from circuits.metrics.answers import preference_of
from circuits.metrics.metric import Metric, SiteMetric, reading
from circuits.metrics.readout import metric_name
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import last_logits, unembed
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.tokens import token_strings
from saes.edit import Edit, Patch, Redirect, applied
from saes.evaluation.bootstrap import Interval, interval, ratio_interval, resamples
from saes.evaluation.splice import unpadded
from saes.suite import Suite

TOKENS_AT_ONCE = 2048
CONTEXT = 12
"Tokens that are told before each of these:"
MOST = 20
"Tokens of a text that are listed: where the edit changes the prediction most."


@dataclass(frozen=True, kw_only=True, eq=False)
class Edited:
    """A model under an edit, or under a control of one."""

    model: TransformerBridge
    suite: Suite
    edit: Edit
    redirect: Redirect | None = None
    must_fire: bool = True

    @property
    def needs_patch(self) -> bool:
        return any(op.needs == "patch" for op in self.edit.operations)

    @contextmanager
    def applied(self, patch: Patch | None = None) -> Generator[None, None, None]:
        """The edit in every run inside the block."""
        with applied(
            self.model,
            self.suite,
            self.edit,
            patch=patch,
            must_fire=self.must_fire,
            redirect=self.redirect,
        ):
            yield


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


def rerun_prompts(analysis: Analysis, edit: Edit) -> dict[str, Any]:
    """The prompts of an analysis before and after an edit: metric, preferred answer, KL.

        rerun_prompts(analysis, edit)["change"]

    Raises `ValueError` for an edit of other dictionaries, and `RuntimeError` for one that changes
    nothing in any prompt.
    """
    model, prompts = analysis.model, analysis.prompts
    edited = Edited(model=model, suite=analysis.suite, edit=edit)
    size = analysis.config.batch_size
    before = run_prompts(model, prompts, analysis.metric, batch_size=size)
    after = _run_edited(analysis, edited)
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
        "prompts": _prompt_rows(analysis, before, after, kl),
    }


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


def mean_of(values: Float[Tensor, " prompts"]) -> dict[str, Any]:
    """A mean over prompts as a record holds it, with its 95 % bootstrap interval."""
    values = values.double()
    return figure(float(values.mean()), interval(resamples(len(values)) @ values))


def figure(value: float, ends: Interval) -> dict[str, Any]:
    """A number and its interval, as a record holds them."""
    low_high = None if ends is None else [rounded(end) for end in ends]
    return {"value": rounded(value), "interval": low_high}


@dataclass(frozen=True, kw_only=True)
class PlainText:
    """Blocks of a text, and the stream that leaves the last layer as the model is."""

    blocks: Int[Tensor, "blocks pos"]
    streams: Float[Tensor, "blocks pos d_model"]


@dataclass(frozen=True, kw_only=True)
class TextOutcomes:
    """What a run of a text predicts at every token, on the CPU: in nats, and as token numbers."""

    ce_before: Float[Tensor, "blocks predicted"]
    ce: Float[Tensor, "blocks predicted"]
    kl: Float[Tensor, "blocks predicted"]
    "from the plain model's distribution"
    likeliest_before: Int[Tensor, "blocks predicted"]
    likeliest: Int[Tensor, "blocks predicted"]


@torch.no_grad()
def plain_text(model: TransformerBridge, blocks: Int[Tensor, "blocks pos"]) -> PlainText:
    """Run a text as the model is."""
    return PlainText(blocks=blocks, streams=_streams(model, blocks))


@torch.no_grad()
def run_text(model: TransformerBridge, plain: PlainText, edited: Edited) -> TextOutcomes:
    """Run a text under an edit, and hold its predictions against those of the plain model.

    Raises `RuntimeError` for an edit that changes nothing in it, unless it need not.
    """
    with edited.applied():
        streams = _streams(model, plain.blocks)
    # One block is unembedded at a time: with a large vocabulary, logits are what fills the memory.
    rows = [
        _predictions(model, *row) for row in zip(plain.blocks, plain.streams, streams, strict=True)
    ]
    return TextOutcomes(
        **{name: torch.stack([row[name] for row in rows]).cpu() for name in rows[0]}
    )


def _streams(
    model: TransformerBridge, blocks: Int[Tensor, "blocks pos"]
) -> Float[Tensor, "blocks pos d_model"]:
    last = Site("resid_post", len(model.blocks) - 1)
    found = []
    for some in blocks.split(max(1, TOKENS_AT_ONCE // blocks.shape[1])):
        with capture(model, {last}) as seen:
            last_logits(model, unpadded(some))
        found.append(seen[last])
    return torch.cat(found)


def _predictions(
    model: TransformerBridge,
    tokens: Int[Tensor, " pos"],
    plain: Float[Tensor, "pos d_model"],
    edited: Float[Tensor, "pos d_model"],
) -> dict[str, Tensor]:
    following = tokens[1:].to(plain.device)
    p, q = (unembed(model, x[None, :-1])[0].log_softmax(-1) for x in (plain, edited))
    at = following.unsqueeze(-1)
    return {
        "ce_before": -p.gather(-1, at)[:, 0].double(),
        "ce": -q.gather(-1, at)[:, 0].double(),
        "kl": F.kl_div(q, p, log_target=True, reduction="none").sum(-1).double(),
        "likeliest_before": p.argmax(-1),
        "likeliest": q.argmax(-1),
    }


def per_token(values: Float[Tensor, "blocks predicted"]) -> dict[str, Any]:
    """A mean over the tokens of a text, its interval by drawing blocks again."""
    sums, counts = values.double().sum(1), torch.full((len(values),), float(values.shape[1]))
    return figure(float(values.double().mean()), ratio_interval(sums, counts))


def rerun_text(
    model: TransformerBridge, suite: Suite, edit: Edit, blocks: Int[Tensor, "blocks pos"]
) -> dict[str, Any]:
    """Cross-entropy and KL per token of a text before and after an edit, in nats.

        rerun_text(analysis.model, analysis.suite, edit, blocks)["change"]

    `same` is the share of tokens whose likeliest follower stays; `most` lists the tokens whose
    prediction moves most. Raises as `rerun_prompts` does.
    """
    edited = Edited(model=model, suite=suite, edit=edit)
    found = run_text(model, plain_text(model, blocks), edited)
    return {
        "blocks": len(blocks),
        "tokens": found.ce.numel(),
        "ce_before": per_token(found.ce_before),
        "ce_after": per_token(found.ce),
        "change": per_token(found.ce - found.ce_before),
        "kl": per_token(found.kl),
        "same": per_token((found.likeliest == found.likeliest_before).double()),
        "most": _most(model, blocks, found),
    }


def _most(
    model: TransformerBridge, blocks: Int[Tensor, "blocks pos"], found: TextOutcomes
) -> list[dict[str, Any]]:
    """The tokens whose prediction moves most, with what stands before them."""
    order = found.kl.flatten().argsort(descending=True, stable=True)[:MOST].tolist()
    rows = []
    for place in order:
        block, at = divmod(place, found.kl.shape[1])
        ids = [
            int(blocks[block, at + 1]),
            int(found.likeliest_before[block, at]),
            int(found.likeliest[block, at]),
        ]
        before = blocks[block, max(0, at - CONTEXT + 1) : at + 1].tolist()
        token, *likeliest = token_strings(model.tokenizer, ids)
        rows.append(
            {
                "before": "".join(token_strings(model.tokenizer, before)),
                "token": token,
                "p_before": rounded(math.exp(-float(found.ce_before[block, at]))),
                "p_after": rounded(math.exp(-float(found.ce[block, at]))),
                "kl": rounded(float(found.kl[block, at])),
                "likeliest_before": likeliest[0],
                "likeliest_after": likeliest[1],
            }
        )
    return rows

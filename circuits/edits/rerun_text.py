"""Run a text again under an edit: what prediction costs, and which tokens' changes most.

Axes: `blocks` of text, `predicted` the tokens after a block's first.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.edits.edited_model import TOKENS_AT_ONCE, Edited
from circuits.edits.figures import per_token
from circuits.graph import rounded
from hooked_qwen.forward import last_logits, unembed
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.tokens import token_strings
from saes.edit_file import Edit
from saes.evaluation.splice import unpadded
from saes.suite import Suite

CONTEXT = 12
"Tokens that are told before each of these:"
MOST = 20
"Tokens of a text that are listed: where the edit changes the prediction most."


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


def rerun_text(
    model: TransformerBridge, suite: Suite, edit: Edit, blocks: Int[Tensor, "blocks pos"]
) -> dict[str, Any]:
    """Cross-entropy and KL per token of a text before and after an edit, in nats.

        rerun_text(analysis.model, analysis.suite, edit, blocks)["change"]

    `same` is the share of tokens whose likeliest follower stays; `most` lists the tokens whose
    prediction changes most. Raises as `rerun_prompts` does.
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
    """The tokens whose prediction changes most, with what stands before them."""
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

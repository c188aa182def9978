"""What a model writes after a prompt, as it is and under an edit, side by side.

Both continuations are held against both models: each of their tokens has the probability that the
plain model gives it there and that the edited one gives it, so that one sees where the edit acts
also where both write the same.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import GenerationConfig

from circuits.edits.rerun import Edited
from circuits.graph import rounded
from hooked_qwen.forward import last_logits, unembed
from hooked_qwen.hooks import capture
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch, encode_prompt, end_of_text, pad_left, token_strings
from saes.edit import Edit
from saes.suite import Suite

LEAST = 0.01
"A probability that moves by less is not marked, whatever its odds do."
TINY = 1e-9


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """How continuations are written, and which of their tokens are marked."""

    tokens: int = 40
    "at most, until the text ends"
    temperature: float = 0.0
    "0: the likeliest token each time"
    mark: float = 2.0
    "a token is marked where the edit changes its odds by this factor or more"
    seed: int = 0
    "of the draws, the same for both continuations"

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise ValueError(f"tokens is {self.tokens}: expected at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: expected 0 or more")
        if self.mark <= 1:
            raise ValueError(f"mark is {self.mark}: expected a factor, more than 1")


def rerun_generation(
    model: TransformerBridge,
    suite: Suite,
    edit: Edit,
    prompts: Sequence[str],
    config: GenerateConfig | None = None,
) -> dict[str, Any]:
    """The continuations of prompts before and after an edit, token by token.

        rerun_generation(analysis.model, analysis.suite, edit, ["The surgeons near"])

    Raises `ValueError` for an edit of other dictionaries, and `RuntimeError` for one that changes
    nothing in any of them.
    """
    config = config or GenerateConfig()
    rows = [encode_prompt(model.tokenizer, text) for text in prompts]
    batch = pad_left(rows, end_of_text(model.tokenizer)).to(device_of(model))
    edited = Edited(model=model, suite=suite, edit=edit)
    plainly = generate(model, batch, config)
    with edited.applied():
        otherwise = generate(model, batch, config)
        # A pass over a prompt that goes on counts the rest as generated.
        after = [_probabilities(model, batch, written) for written in (plainly, otherwise)]
    before = [_probabilities(model, batch, written) for written in (plainly, otherwise)]
    ends = _ends(model)
    found = []
    for i, text in enumerate(prompts):
        both = [
            _tokens(model, written[i], before[j][i], after[j][i], config.mark, ends)
            for j, written in enumerate((plainly, otherwise))
        ]
        texts = ["".join(token["token"] for token in side) for side in both]
        found.append(
            {
                "prompt": text,
                "before": texts[0],
                "after": texts[1],
                "same_tokens": _shared(*both),
                "tokens_before": both[0],
                "tokens_after": both[1],
            }
        )
    return {**asdict(config), "prompts": found}


@torch.no_grad()
def generate(
    model: TransformerBridge, batch: Batch, config: GenerateConfig
) -> Int[Tensor, "prompts written"]:
    """Tokens that the model writes after each prompt, with a cache; hooks run as always."""
    inner = cast(Any, model.original_model)
    settings = GenerationConfig(
        max_new_tokens=config.tokens,
        do_sample=config.temperature > 0,
        temperature=config.temperature or None,
        top_k=0 if config.temperature else None,
        use_cache=True,
        eos_token_id=_ends(model) or None,
        pad_token_id=end_of_text(model.tokenizer),
    )
    with torch.random.fork_rng(devices=[d for d in [batch.tokens.device] if d.type == "cuda"]):
        torch.manual_seed(config.seed)
        text = inner.generate(
            batch.tokens, attention_mask=batch.mask.long(), generation_config=settings
        )
    return text[:, batch.tokens.shape[1] :]


def _ends(model: TransformerBridge) -> list[int]:
    """The tokens that end a text: the model's own, else the tokenizer's."""
    own = getattr(getattr(model.original_model, "generation_config", None), "eos_token_id", None)
    if own is None:
        return [end_of_text(model.tokenizer)]
    return list(own) if isinstance(own, list | tuple) else [own]


@torch.no_grad()
def _probabilities(
    model: TransformerBridge, batch: Batch, written: Int[Tensor, "prompts written"]
) -> Tensor:
    """The probability of each token that was written, `[prompts, written]`."""
    whole = Batch(
        tokens=torch.cat([batch.tokens, written], 1),
        mask=torch.cat([batch.mask, torch.ones_like(written, dtype=torch.bool)], 1),
    )
    last = Site("resid_post", len(model.blocks) - 1)
    with capture(model, {last}) as seen:
        last_logits(model, whole)
    found = []
    for stream, tokens in zip(seen[last], written, strict=True):
        at = stream[None, batch.tokens.shape[1] - 1 : -1]
        p = unembed(model, at)[0].softmax(-1)
        found.append(p.gather(-1, tokens.unsqueeze(-1).to(p.device))[:, 0])
    return torch.stack(found).cpu()


def _tokens(
    model: TransformerBridge,
    written: Int[Tensor, " written"],
    before: Tensor,
    after: Tensor,
    mark: float,
    ends: Sequence[int],
) -> list[dict[str, Any]]:
    """Each token with its probability before and after, up to where the text ends."""
    ids = written.tolist()
    stop = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
    texts = token_strings(model.tokenizer, ids[:stop])
    return [
        {
            "token": text,
            "before": rounded(p),
            "after": rounded(q),
            "mark": _mark(p, q, mark),
        }
        for text, p, q in zip(texts, before.tolist(), after.tolist(), strict=False)
    ]


def _mark(before: float, after: float, factor: float) -> str | None:
    """Whether a probability is raised or lowered: its odds by the factor, and enough to matter."""
    odds = [p / max(1 - p, TINY) for p in (before, after)]
    low, high = sorted(odds)
    if abs(after - before) < LEAST or high < factor * low:
        return None
    return "raised" if after > before else "lowered"


def _shared(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]]) -> int:
    """How many tokens two continuations have in common from their start."""
    same = [x["token"] == y["token"] for x, y in zip(a, b, strict=False)]
    return same.index(False) if False in same else len(same)

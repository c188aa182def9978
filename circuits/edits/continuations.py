"""What a model writes after a prompt, as it is and under an edit, side by side.

Both continuations are held against both models: each of their tokens has the probability that the
plain model gives it there and that the edited one gives it, so that one sees where the edit acts
also where both write the same. With part of the model held while a prompt is read
(`transcoders.generation`), prompts are written on from one by one.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from circuits.edits.held_run import Fired
from circuits.edits.rerun import Edited
from circuits.graph import rounded
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.forward import last_logits, last_tokens_together, unembed
from hooked_qwen.hooks import capture
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch, encode_prompt, end_of_text, pad_left, token_strings
from saes.edit import Edit
from saes.suite import Suite
from transcoders.generation import generating
from transcoders.interventions import THE_MODEL, Mode

LEAST = 0.01
"A probability that changes by less is not marked, whatever its odds do."
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
        check_at_least(1, self, "tokens")
        if self.temperature < 0:
            raise ValueError(f"temperature is {self.temperature}: expected 0 or more")
        if self.mark <= 1:
            raise ValueError(f"mark is {self.mark}: expected a factor, more than 1")


@dataclass(frozen=True)
class _Continuation:
    """A continuation and the probability of each of its tokens, plainly and under the edit."""

    tokens: Int[Tensor, " written"]
    before: Float[Tensor, " written"]
    after: Float[Tensor, " written"]


_Both = tuple[_Continuation, _Continuation]
"What a prompt is continued by plainly, and under the edit."


def rerun_generation(
    model: TransformerBridge,
    suite: Suite,
    edit: Edit,
    prompts: Sequence[str],
    config: GenerateConfig | None = None,
    mode: Mode = THE_MODEL,
) -> dict[str, Any]:
    """The continuations of prompts before and after an edit, token by token.

        rerun_generation(analysis.model, analysis.suite, edit, ["The surgeons near"])

    What `mode` says is held while a prompt is read. Raises `ValueError` for an edit of other
    dictionaries, and `RuntimeError` for one that changes nothing in any of them.
    """
    config = config or GenerateConfig()
    rows = [encode_prompt(model.tokenizer, text) for text in prompts]
    if mode == THE_MODEL:
        written = _in_the_model(Edited(model=model, suite=suite, edit=edit), rows, config)
    else:
        written = _held(model, suite, edit, rows, config, mode)
    ends = text_ends(model)
    found = []
    for text, sides in zip(prompts, written, strict=True):
        both = [_tokens(model, side, config.mark, ends) for side in sides]
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
    held = {} if mode == THE_MODEL else asdict(mode)
    return {**asdict(config), **held, "prompts": found}


def _in_the_model(
    edited: Edited, rows: Sequence[Sequence[int]], config: GenerateConfig
) -> list[_Both]:
    """All prompts together."""
    model = edited.model
    batch = pad_left(rows, end_of_text(model.tokenizer)).to(device_of(model))
    plainly = generate(model, batch, config)
    with edited.applied():
        otherwise = generate(model, batch, config)
        # A pass over a prompt that goes on counts the rest as generated.
        after = [_probabilities(model, batch, written) for written in (plainly, otherwise)]
    before = [_probabilities(model, batch, written) for written in (plainly, otherwise)]
    sides = [
        [_Continuation(*row) for row in zip(*side, strict=True)]
        for side in zip((plainly, otherwise), before, after, strict=True)
    ]
    return list(zip(*sides, strict=True))


def _held(
    model: TransformerBridge,
    suite: Suite,
    edit: Edit,
    rows: Sequence[Sequence[int]],
    config: GenerateConfig,
    mode: Mode,
) -> list[_Both]:
    """Each prompt alone, in two rows of which the second is edited; that one counts."""
    fired, found = Fired([edit]), []

    @contextmanager
    def under_edit() -> Generator[None]:
        with generating(model, suite, edit, mode, must_fire=False) as firing:
            yield
        fired.note(0, [firing])

    for row in rows:
        # Plainly in two rows as well, so that the same draws are those of the second.
        batch = pad_left([row, row], end_of_text(model.tokenizer)).to(device_of(model))
        plainly = generate(model, batch, config)[1]
        with under_edit():
            otherwise = generate(model, batch, config)[1]
        sides = []
        for written in (plainly, otherwise):
            with under_edit():
                before, after = _step_by_step(model, batch, written)
            sides.append(_Continuation(written, before, after))
        found.append((sides[0], sides[1]))
    fired.require(model.tokenizer)
    return found


@torch.no_grad()
def generate(
    model: TransformerBridge,
    batch: Batch,
    config: GenerateConfig,
    *,
    processors: Sequence[LogitsProcessor] = (),
) -> Int[Tensor, "prompts written"]:
    """Tokens that the model writes after each prompt, with a cache; hooks run as always.

    `processors` change the logits of each step, or look at them.
    """
    inner = cast(Any, model.original_model)
    settings = GenerationConfig(
        max_new_tokens=config.tokens,
        do_sample=config.temperature > 0,
        temperature=config.temperature or None,
        top_k=0 if config.temperature else None,
        use_cache=True,
        eos_token_id=text_ends(model) or None,
        pad_token_id=end_of_text(model.tokenizer),
    )
    cuda = [d for d in [batch.tokens.device] if d.type == "cuda"]
    with torch.random.fork_rng(devices=cuda), last_tokens_together(model):
        torch.manual_seed(config.seed)
        text = inner.generate(
            batch.tokens,
            attention_mask=batch.mask.long(),
            generation_config=settings,
            logits_processor=LogitsProcessorList(processors),
        )
    return text[:, batch.tokens.shape[1] :]


def text_ends(model: TransformerBridge) -> list[int]:
    """The tokens that end a text: the model's own, else the tokenizer's; those of a turn too."""
    own = getattr(getattr(model.original_model, "generation_config", None), "eos_token_id", None)
    if own is None:
        own = end_of_text(model.tokenizer)
    ends = list(own) if isinstance(own, list | tuple) else [own]
    turn = getattr(model.tokenizer, "eos_token_id", None)
    return ends if turn is None or turn in ends else [*ends, turn]


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


@torch.no_grad()
def _step_by_step(
    model: TransformerBridge, batch: Batch, written: Int[Tensor, " written"]
) -> Float[Tensor, "rows written"]:
    """The probability of each token in every row, read as it is when it is generated."""
    inner, tokens, cache, found = cast(Any, model.original_model), batch.tokens, None, []
    for token in written:
        # A token at a time: a gated delta net goes on from its state with one alone.
        seen = inner(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
        found.append(seen.logits[:, -1].float().softmax(-1)[:, token].cpu())
        cache, tokens = seen.past_key_values, token.expand(len(tokens), 1)
    return torch.stack(found, 1)


def _tokens(
    model: TransformerBridge, side: _Continuation, mark: float, ends: Sequence[int]
) -> list[dict[str, Any]]:
    """Each token with its probability before and after, up to where the text ends."""
    ids = side.tokens.tolist()
    stop = next((i + 1 for i, token in enumerate(ids) if token in ends), len(ids))
    texts = token_strings(model.tokenizer, ids[:stop])
    return [
        {
            "token": text,
            "before": rounded(p),
            "after": rounded(q),
            "mark": _mark(p, q, mark),
        }
        for text, p, q in zip(texts, side.before.tolist(), side.after.tolist(), strict=False)
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

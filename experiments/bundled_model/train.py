"""Train a small Qwen3 on token rows."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen3Config, Qwen3ForCausalLM

WATCH_EVERY = 600
"""steps"""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One pass over rows of one kind of text."""

    tokens: int
    """seen, each once"""
    length: int
    """tokens in a row"""
    rate: float
    """peak learning rate"""
    end: float
    """share of the peak rate that is left at the end"""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the weights, together with the code and the torch build."""

    layers: int = 5
    width: int = 128
    """d_model"""
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    mlp: int = 512
    """d_mlp"""
    rope_theta: float = 100.0
    """of the rotary positions: at 10,000 half of a head's 32 dimensions stand still over a row"""
    rounds: Stage = Stage(tokens=2_500_000, length=64, rate=1e-3, end=1.0)
    """words over and over, until the heads that copy have formed"""
    text: Stage = Stage(tokens=6_000_000, length=256, rate=2e-3, end=0.0)
    """then everything"""
    batch: int = 2048
    """tokens in a step"""
    warm_up: int = 200
    """steps at the start of each stage"""
    weight_decay: float = 0.1
    seed: int = 0
    threads: int = 1
    """one does not suffer when the machine's other cores are busy"""


def new_model(recipe: Recipe, vocabulary: int) -> Qwen3ForCausalLM:
    """An untrained model; `vocabulary` is its number of tokens, token 0 ends a document."""
    torch.manual_seed(recipe.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=vocabulary,
            hidden_size=recipe.width,
            intermediate_size=recipe.mlp,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.kv_heads,
            head_dim=recipe.head_dim,
            max_position_embeddings=recipe.text.length,
            rope_parameters={"rope_theta": recipe.rope_theta, "rope_type": "default"},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=0,
        )
    )


def fit(
    model: Qwen3ForCausalLM,
    rows: Int[Tensor, "rows length"],
    stage: Stage,
    recipe: Recipe,
    watch: Callable[[], None],
) -> None:
    """Train in place, one pass over `rows`.

    Calls `watch` every `WATCH_EVERY` steps, to look at the model half-way. The forward pass is
    in bfloat16, the weights and the optimizer in float32.
    """
    optimizer = torch.optim.AdamW(
        _groups(model, recipe.weight_decay), lr=stage.rate, betas=(0.9, 0.95), fused=True
    )
    size = recipe.batch // stage.length
    steps = len(rows) // size
    start = time.perf_counter()
    model.train()
    for step, batch in enumerate(rows[: steps * size].split(size)):
        for group in optimizer.param_groups:
            group["lr"] = stage.rate * schedule(step, steps, recipe.warm_up, stage.end)
        loss = language_loss(model, batch.long())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if step % WATCH_EVERY == WATCH_EVERY - 1:
            watch()
        if step % 50 == 0 or step == steps - 1:
            speed = (step + 1) * batch.numel() / (time.perf_counter() - start)
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {speed:,.0f} tokens/s", flush=True)


def language_loss(model: Qwen3ForCausalLM, batch: Int[Tensor, "batch pos"]) -> Tensor:
    """Mean cross-entropy of every next token, in nats."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(input_ids=batch, use_cache=False).logits[:, :-1]
        return cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def schedule(step: int, steps: int, warm_up: int, end: float) -> float:
    """Share of the peak rate: straight up over `warm_up` steps, then a half cosine to `end`."""
    if step < warm_up:
        return (step + 1) / warm_up
    fall = 0.5 * (1 - math.cos(math.pi * (step - warm_up) / max(steps - warm_up, 1)))
    return 1 - (1 - end) * fall


def _groups(model: Qwen3ForCausalLM, decay: float) -> list[dict]:
    """Matrices decay towards nought, norm scales do not."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    scales = [p for p in model.parameters() if p.ndim == 1]
    return [{"params": matrices, "weight_decay": decay}, {"params": scales, "weight_decay": 0.0}]

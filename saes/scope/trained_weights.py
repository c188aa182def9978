"""Which weights of a model are trained: all of them, or low-rank additions to them (LoRA)."""

from typing import Any, cast

import torch
from torch import nn

from hooked_qwen.adapters import require_peft

TARGETS = "all-linear"
"Every linear layer but the unembedding."


def opened(model: nn.Module, rank: int | None, *, base: str, seed: int = 0) -> nn.Module:
    """The model to train: itself, or with a LoRA adapter of `rank` at every linear layer.

        W' = W + (alpha / rank) B A,   alpha = 2 rank, A random by `seed`, B zero

    so that it computes as before. `base` is what the adapter says that it belongs to. Without a
    rank every weight is trained. Source: LoRA, arXiv:2106.09685. Raises `ValueError` for a rank
    below 1, and where peft is not installed.
    """
    if rank is None:
        return model.requires_grad_(True)
    if rank < 1:
        raise ValueError(f"the rank is {rank}: expected at least 1")
    peft = require_peft()
    settings = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=TARGETS, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=_cuda_of(model)):
        torch.manual_seed(seed)
        adapted = peft.get_peft_model(cast(Any, model), settings)
    adapted.peft_config["default"].base_model_name_or_path = base
    return adapted


def _cuda_of(model: nn.Module) -> list[torch.device]:
    return [d for d in {p.device for p in model.parameters()} if d.type == "cuda"]


def counts(model: nn.Module) -> dict[str, int]:
    """Weights that there are, and those of them that are trained."""
    return {
        "weights": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in model.parameters() if p.requires_grad),
    }

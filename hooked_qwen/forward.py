"""Run a hooked model whole, or from the output of one layer onward.

Effects of an edit at layer L need only the layers after L. TransformerLens' `start_at_layer`
still runs the earlier blocks and drops their output, so resuming here calls the later blocks
directly with the arguments (mask, rotary tables) that a whole pass gave them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.tokens import Batch

LastLogits = Float[Tensor, "batch vocabulary"]
Resid = Float[Tensor, "batch pos d_model"]


def last_logits(model: TransformerBridge, batch: Batch) -> LastLogits:
    """Logits after the last token of every prompt; the other positions are not unembedded."""
    return _forward(model, batch)[:, -1]


def run_through(model: TransformerBridge, batch: Batch, layer: int) -> None:
    """Run the model up to and including block `layer`, for what hooks see on the way."""
    _forward(model, batch, stop_at_layer=layer + 1 if layer + 1 < len(model.blocks) else None)


def _forward(model: TransformerBridge, batch: Batch, **options: Any) -> Tensor:
    if model.cfg.dtype == torch.float64 and not batch.mask.all():
        # The softmax runs in float32, where float64's most negative number is -inf: rows that
        # see padding only become NaN.
        raise ValueError("padded prompts need a model in float32 or less, this one is in float64")
    return model(
        batch.tokens,
        attention_mask=batch.mask.long(),
        use_cache=False,
        logits_to_keep=1,
        **options,
    )


@dataclass(frozen=True)
class BlockArguments:
    """What each block was called with besides the residual stream, for one batch of prompts."""

    size: int
    by_layer: tuple[dict[str, Any], ...]

    def rows(self, index: Int[Tensor, " batch"]) -> "BlockArguments":
        """The arguments for the prompts at `index`, repeats allowed."""
        pick = {
            id(value): _pick(value, index, self.size)
            for arguments in self.by_layer
            for value in arguments.values()
        }
        chosen = tuple({k: pick[id(v)] for k, v in a.items()} for a in self.by_layer)
        return BlockArguments(len(index), chosen)


def _pick(value: Any, index: Int[Tensor, " batch"], size: int) -> Any:
    if isinstance(value, Tensor):
        return value[index] if value.dim() > 1 and len(value) == size else value
    if isinstance(value, tuple):
        return tuple(_pick(v, index, size) for v in value)
    return value


def run_recording(model: TransformerBridge, batch: Batch) -> tuple[LastLogits, BlockArguments]:
    """`last_logits`, and the arguments every block was called with, for `resume`."""
    seen: dict[int, dict[str, Any]] = {}
    handles = [
        block.register_forward_pre_hook(
            lambda _module, _args, kwargs, layer=layer: seen.__setitem__(layer, dict(kwargs)),
            with_kwargs=True,
        )
        for layer, block in enumerate(model.blocks)
    ]
    try:
        logits = last_logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    arguments = tuple(seen[layer] for layer in range(len(model.blocks)))
    return logits, BlockArguments(len(batch), arguments)


def resume(
    model: TransformerBridge,
    resid: Resid,
    layer: int,
    arguments: BlockArguments,
) -> Resid:
    """The stream after the last block when `resid` enters block `layer`; hooks run as always.

    `layer` equal to the number of layers gives `resid` back.
    """
    for block, kwargs in zip(model.blocks[layer:], arguments.by_layer[layer:], strict=True):
        output = block(resid, **kwargs)
        resid = output[0] if isinstance(output, tuple) else output
    return resid


def unembed(model: TransformerBridge, resid: Resid) -> Float[Tensor, "batch pos vocabulary"]:
    """Logits at the positions of `resid`, the stream after the last block."""
    return model.unembed(model.ln_final(resid))

"""Run a hooked model whole, or from the output of one layer onward.

Effects of an edit at layer L need only the layers after L. TransformerLens' `start_at_layer`
still runs the earlier blocks and drops their output, so resuming here calls the later blocks
directly with the arguments (mask, rotary tables) that a whole pass gave them.

Streams and logits go in and out in float32 where the model computes in less.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from accelerate.utils import send_to_device
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.notices import notify
from hooked_qwen.placement import device_of
from hooked_qwen.precision import model_precision, widened
from hooked_qwen.tokens import Batch, token_strings

LastLogits = Float[Tensor, "batch vocabulary"]
Resid = Float[Tensor, "batch pos d_model"]


def last_logits(model: TransformerBridge, batch: Batch) -> LastLogits:
    """Logits after the last token of every prompt; the other positions are not unembedded."""
    return widened(_forward(model, batch)[:, -1])


def run_through(model: TransformerBridge, batch: Batch, layer: int) -> None:
    """Run the model up to and including block `layer`, for what hooks see on the way."""
    _forward(model, batch, stop_at_layer=layer + 1 if layer + 1 < len(model.blocks) else None)


def _forward(model: TransformerBridge, batch: Batch, **options: Any) -> Tensor:
    if model.cfg.dtype == torch.float64 and not batch.mask.all():
        # The softmax runs in float32, where float64's most negative number is -inf: rows that
        # see padding only become NaN.
        raise ValueError("padded prompts need a model in float32 or less, this one is in float64")
    require_in_vocabulary(model, batch.tokens)
    _notify_of_length(model, int(batch.mask.sum(1).max()))
    # Only now: what is asked of a batch on another device waits for that.
    batch = batch.to(device_of(model))
    with last_tokens_together(model):
        return model(
            batch.tokens,
            attention_mask=batch.mask.long(),
            use_cache=False,
            logits_to_keep=1,
            **options,
        )


@contextmanager
def last_tokens_together(model: TransformerBridge) -> Generator[None, None, None]:
    """Let the head see last tokens without the gaps between them.

    The last token of every prompt is a slice with gaps. For such a one torch copies the head's
    weights for each prompt (bfloat16), or reads them anew for each (float32).
    """
    head = model.unembed.original_component
    handle = head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def require_in_vocabulary(model: TransformerBridge, tokens: Int[Tensor, "*any"]) -> None:
    """Raise `ValueError` naming a token that the model's vocabulary does not have."""
    size = cast(Any, model.original_model).get_input_embeddings().weight.shape[0]
    largest = int(tokens.max()) if tokens.numel() else 0
    if largest >= size:
        told = model.tokenizer and token_strings(model.tokenizer, [largest])[0]
        raise ValueError(
            f"the token {told!r} has number {largest}, but {model.cfg.model_name} embeds "
            f"{size} tokens, 0 to {size - 1}: the tokenizer is another model's, or has entries "
            "that this model was not trained with"
        )


def _notify_of_length(model: TransformerBridge, longest: int) -> None:
    config: Any = model.original_model.config
    known = getattr(config, "max_position_embeddings", None)
    if known is not None and longest > known:
        notify(
            f"a text of {longest} tokens goes beyond the {known} positions that "
            f"{model.cfg.model_name} was made for: what it does there is not what it was trained to"
        )


@dataclass(frozen=True)
class KVCache:
    """Keys and values of earlier positions, by layer; attention takes it for a cache."""

    by_layer: dict[int, tuple[Tensor, Tensor]]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        """Keys and values of all positions, given those of the later ones."""
        before = self.by_layer[layer]
        return torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)

    def part(self, index: Int[Tensor, " batch"], stop: int) -> "KVCache":
        """Those of the prompts at `index`, at the positions before `stop`."""
        found = {}
        for layer, (keys, values) in self.by_layer.items():
            # Layers may lie on several devices.
            rows = index.to(keys.device)
            found[layer] = keys[rows, :, :stop], values[rows, :, :stop]
        return KVCache(found)


@dataclass(frozen=True)
class _CacheRecorder:
    """Takes a cache's place, and only notes what attention gives it."""

    by_layer: dict[int, tuple[Tensor, Tensor]]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any) -> tuple[Tensor, Tensor]:
        self.by_layer[layer] = keys.detach(), values.detach()
        return keys, values


@dataclass(frozen=True)
class BlockArguments:
    """What each block was called with besides the residual stream, for one batch of prompts."""

    size: int
    by_layer: tuple[dict[str, Any], ...]
    cache: KVCache | None = None
    "keys and values of the whole run, where they were kept"

    def rows(self, index: Int[Tensor, " batch"], *, first: int = 0) -> "BlockArguments":
        """The arguments for the prompts at `index`, repeats allowed.

        With `first`, for streams that hold the positions from there on: attention sees the keys
        and values that the run had at those before.
        """
        pick = {
            id(value): _later(_pick(value, index, self.size), first)
            for arguments in self.by_layer
            for value in arguments.values()
        }
        chosen = tuple({k: pick[id(v)] for k, v in a.items()} for a in self.by_layer)
        if first:
            assert self.cache is not None, "positions can be left out where the cache was kept"
            cache = self.cache.part(index, first)
            chosen = tuple(arguments | {"past_key_values": cache} for arguments in chosen)
        return BlockArguments(len(index), chosen)


def _pick(value: Any, index: Int[Tensor, " batch"], size: int) -> Any:
    if isinstance(value, Tensor):
        picked = value.dim() > 1 and len(value) == size
        return value[index.to(value.device)] if picked else value
    if isinstance(value, tuple):
        return tuple(_pick(v, index, size) for v in value)
    return value


def _later(value: Any, first: int) -> Any:
    """`value` from position `first` on: a mask over (query, key), or an axis after the batch's."""
    if isinstance(value, Tensor):
        return value[:, :, first:] if value.dim() == 4 else value[:, first:]
    if isinstance(value, tuple):
        return tuple(_later(v, first) for v in value)
    return value


def run_recording(
    model: TransformerBridge, batch: Batch, *, keep_cache: bool = False
) -> tuple[LastLogits, BlockArguments]:
    """`last_logits`, and the arguments every block was called with, for `resume`.

    With `keep_cache` also the keys and values of attention, so that a run can leave early
    positions out; models with layers that keep a state instead (Qwen3.5) have none.
    """
    seen: dict[int, dict[str, Any]] = {}
    recorder = _CacheRecorder({})
    keep_cache = keep_cache and not any("linear_attn" in block.submodules for block in model.blocks)

    def record(layer: int) -> Callable[..., tuple[Any, dict[str, Any]]]:
        def note(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            seen[layer] = dict(kwargs)
            return args, kwargs | {"past_key_values": recorder} if keep_cache else kwargs

        return note

    handles = [
        block.register_forward_pre_hook(record(layer), with_kwargs=True)
        for layer, block in enumerate(model.blocks)
    ]
    try:
        logits = last_logits(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    arguments = tuple(seen[layer] for layer in range(len(model.blocks)))
    cache = KVCache(recorder.by_layer) if keep_cache else None
    return logits, BlockArguments(len(batch), arguments, cache)


def block_arguments(model: TransformerBridge, rows: int, positions: int) -> BlockArguments:
    """What each block is called with for any `rows` prompts of so many tokens, none padded."""
    device, dtype = device_of(model), model_precision(model)
    tokens = torch.zeros(rows, positions, dtype=torch.long, device=device)
    lowest = torch.full((positions, positions), torch.finfo(dtype).min, dtype=dtype)
    causal = lowest.triu(1).to(device)
    seen: dict[int, dict[str, Any]] = {}

    def note(layer: int) -> Callable[..., None]:
        return lambda _, args, kwargs: seen.update({layer: dict(kwargs)})

    handles = [
        block.register_forward_pre_hook(note(layer), with_kwargs=True)
        for layer, block in enumerate(model.blocks)
    ]
    mask = causal.expand(rows, 1, positions, positions)
    try:
        # A mask of two axes is looked into, and tensors that have only a shape hold nothing.
        model(tokens, attention_mask=mask, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    return BlockArguments(rows, tuple(seen[layer] for layer in range(len(model.blocks))))


def resume(
    model: TransformerBridge,
    resid: Resid,
    layer: int,
    arguments: BlockArguments,
    *,
    stop: int | None = None,
) -> Resid:
    """The stream after the last block when `resid` enters block `layer`; hooks run as always.

    `layer` equal to the number of layers gives `resid` back. With `stop`, the stream that enters
    that block.
    """
    todo, resid = slice(layer, stop), resid.to(model_precision(model))
    for block, kwargs in zip(model.blocks[todo], arguments.by_layer[todo], strict=True):
        output = block(resid, **kwargs)
        resid = output[0] if isinstance(output, tuple) else output
    return widened(resid).to(device_of(model))


def finish(
    model: TransformerBridge,
    resid: Resid,
    layer: int,
    arguments: BlockArguments,
    *,
    hooked: bool = False,
) -> Float[Tensor, "batch 1 d_model"]:
    """The stream after the last block at the last token, when `resid` enters block `layer`.

    The last block's MLP runs at the last position only, unless the model has hooks.
    """
    last = len(model.blocks) - 1
    if hooked or layer > last:
        return resume(model, resid, layer, arguments)[:, -1:]
    resid = resume(model, resid, layer, arguments, stop=last)
    return _last_block(model, resid, arguments.by_layer[last])[:, -1:]


def has_hooks(model: nn.Module) -> bool:
    """Whether any tensor is read or edited now: then none may be left out or cut short."""
    return any(module._forward_hooks for module in model.modules())


def _last_block(model: TransformerBridge, resid: Resid, kwargs: dict[str, Any]) -> Tensor:
    block, resid = cast(Any, model.blocks[-1]), resid.to(model_precision(model))
    if "linear_attn" in block.submodules:
        output = block(resid, **kwargs)
        return widened(output[0] if isinstance(output, tuple) else output).to(device_of(model))
    # Of several devices, only a whole block brings what it is called with to its own.
    there = device_of(block)
    resid, kwargs = resid.to(there), send_to_device(kwargs, there, skip_keys="past_key_values")
    mixed, _ = block.attn(hidden_states=block.ln1(resid), **kwargs)
    return mlp_half(model, (resid + mixed)[:, -1:], len(model.blocks) - 1)


def mlp_half(model: TransformerBridge, resid_mid: Resid, layer: int) -> Resid:
    """The stream after block `layer` when `resid_mid` enters its MLP's norm."""
    block = cast(Any, model.blocks[layer])
    resid_mid = resid_mid.to(device_of(block), model_precision(model))
    return widened(resid_mid + block.mlp(block.ln2(resid_mid))).to(device_of(model))


def unembed(
    model: TransformerBridge, resid: Resid, tokens: Int[Tensor, " tokens"] | None = None
) -> Float[Tensor, "batch pos tokens"]:
    """Logits where the stream after the last block is `resid`: all, or those of `tokens`."""
    final = model.ln_final(resid.to(model_precision(model)))
    if tokens is None or has_hooks(model.unembed):
        logits = widened(model.unembed(final))
        return logits if tokens is None else logits[..., tokens]
    # TransformerLens gives a head without a bias one of zeros.
    head = model.unembed.original_component
    return widened(F.linear(final, head.weight[tokens], head.bias[tokens]))

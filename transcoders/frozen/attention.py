"""Softmax attention with its patterns frozen, per head.

What is linear then: each token takes a fixed mixture of earlier tokens' values. Queries and keys,
with their biases, norms and rotary angles, act through the pattern alone, which is a constant; the
bias of the values (Qwen2) passes through as one. Qwen3.5 multiplies what the heads give by a gate
of the token that asks, sigmoid(x W_gate), which is frozen too.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention
from transformers.models.qwen3.modeling_qwen3 import Qwen3Attention
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5Attention
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeAttention
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeAttention

from transcoders.frozen.mixer import FrozenMixer
from transcoders.frozen.norm import FrozenNorm
from transcoders.frozen.pattern import Pattern, Softmax

PLAIN = (Qwen2Attention, Qwen3Attention, Qwen3MoeAttention)
GATED = (Qwen3_5Attention, Qwen3_5MoeAttention)


def known_attention(attention: Any) -> Any:
    """The model's own module behind the bridge's `attention`.

    Raises `ValueError` for a kind of attention that is not known.
    """
    own = attention.original_component
    if type(own) not in PLAIN + GATED:
        known = ", ".join(each.__name__ for each in PLAIN + GATED)
        raise ValueError(f"cannot freeze the attention {type(own).__name__}: expected {known}")
    return own


def freeze_attention(
    attention: Any,
    norm: FrozenNorm,
    x: Float[Tensor, "pos d_model"],
    pattern: Pattern,
) -> FrozenMixer:
    """The bridge's `attention` where the stream is `x`, `norm` is what it reads through."""
    own = known_attention(attention)
    values, output = (attention.get_submodule(n).original_component for n in ("v", "o"))
    d_head = own.head_dim
    gate = None
    if type(own) in GATED:
        query = attention.q.original_component
        asked = _linear(query, x * norm.scale).view(len(x), -1, 2, d_head)
        gate = asked[:, :, 1].flatten(1).sigmoid()
    return FrozenMixer(
        mixing=pattern,
        per_rms=norm.per_rms,
        W_V=values.weight.detach().to(x) * norm.gain,
        W_O=output.weight.detach().to(x),
        gate=gate,
        b_V=_bias(values, x),
        b_O=_bias(output, x),
    )


def _linear(layer: Any, x: Tensor) -> Tensor:
    bias = _bias(layer, x)
    return torch.nn.functional.linear(x, layer.weight.detach().to(x), bias)


def _bias(layer: Any, like: Tensor) -> Tensor | None:
    return None if layer.bias is None else layer.bias.detach().to(like)


def softmax_pattern(
    own: Any, query: Float[Tensor, "heads pos d_head"], key: Float[Tensor, "groups pos d_head"]
) -> Softmax:
    """What HF's attention `own` makes of its rotated queries and keys."""
    grouped = query.unflatten(0, (len(key), -1))
    return Softmax(grouped, key, own.scaling, getattr(own, "sliding_window", None))

"""Which model this is: a hash of its weights and of the configuration they are computed with."""

import json
import os
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

PART = 1 << 22
"Values that are hashed together: memory stays flat however large a matrix is."
NOT_COMPUTED_WITH = frozenset(
    {
        "architectures",
        "attn_implementation",
        "bos_token_id",
        "dtype",
        "eos_token_id",
        "id2label",
        "initializer_range",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "problem_type",
        "quantization_config",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
"Entries of a configuration that leave a model's logits as they are."
# What was found, and the tensors, at the states that they had then.
_known: WeakKeyDictionary[TransformerBridge, tuple[Any, str]] = WeakKeyDictionary()


def identity(model: TransformerBridge) -> str:
    """First 16 hex digits of a SHA-256 of the weights, by name and value, and the configuration.

    The same wherever the files lie, whatever they are called, and in whatever precision the same
    values are held; another one after any change to a weight. The tokenizer does not count. Asked
    again it costs nothing, unless a weight was written to in between.
    """
    weights = [(_published(name), p.detach()) for name, p in _parameters(model)]
    state = [(name, p.data_ptr(), p.dtype, _writes(p)) for name, p in weights]
    if model in _known and _known[model][0] == state:
        return _known[model][1]
    digest = sha256(json.dumps(_computed_with(model), sort_keys=True, default=str).encode())
    # Hashing lets other threads run.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        for name, found in sorted(
            zip((n for n, _ in weights), threads.map(_hash, (p for _, p in weights)), strict=True)
        ):
            digest.update(name.encode() + found)
    _known[model] = state, digest.hexdigest()[:16]
    return _known[model][1]


def _parameters(model: TransformerBridge) -> Iterable[tuple[str, Tensor]]:
    return model.original_model.named_parameters()


def _published(name: str) -> str:
    """The name in Hugging Face's files: hooks wrap each module in another."""
    return re.sub(r"_original_component\.", "", name)


def _writes(tensor: Tensor) -> int:
    """How often the tensor was written to; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _computed_with(model: TransformerBridge) -> dict[str, Any]:
    """The configuration where it departs from its class: later classes have more entries."""
    config: Any = model.original_model.config
    usual, own = (_as_computed(c.to_dict()) for c in (type(config)(), config))
    entries = {
        key: value
        for key, value in own.items()
        if key not in NOT_COMPUTED_WITH and not key.startswith("_") and value != usual.get(key)
    }
    return entries | {"model_type": config.model_type}


def _as_computed(value: Any) -> Any:
    """Numbers to the six digits that float32 has: GGUF files keep them in it."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _as_computed(x) for key, x in value.items()}
    return [_as_computed(x) for x in value] if isinstance(value, list | tuple) else value


def _hash(tensor: Tensor) -> bytes:
    digest = sha256(repr(tuple(tensor.shape)).encode())
    for part in tensor.flatten().split(PART):
        values = _narrowest(part)
        digest.update(str(values.dtype).encode())
        digest.update(values.cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.digest()


def _narrowest(values: Tensor) -> Tensor:
    """The same values in the shortest of three types that holds them exactly."""
    for dtype in (torch.bfloat16, torch.float32):
        narrow = values.to(dtype)
        if torch.equal(narrow.to(values.dtype), values):
            return narrow
    return values

"""Which model this is: a hash of its weights and of the configuration they are computed with."""

import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
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
    weights = _weights(model.original_model)
    if model in _known and _known[model][0] == _state(weights):
        return _known[model][1]
    known_as(model, identity_of(model.original_model))
    return _known[model][1]


def identity_of(model: nn.Module) -> str:
    """The `identity` of a Hugging Face model, hooked or not."""
    digest = sha256(json.dumps(_computed_with(model), sort_keys=True, default=str).encode())
    # Hashing lets other threads run.
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:
        hashed = chain.from_iterable(threads.map(_hashes, _groups(_weights(model))))
        for name, found in sorted(hashed):
            digest.update(name.encode() + found)
    return digest.hexdigest()[:16]


def known_as(model: TransformerBridge, name: str) -> None:
    """Let `identity` of a model be `name`, until a weight is written to.

    Weights that were rounded on loading are known as those of the file.
    """
    _known[model] = _state(_weights(model.original_model)), name


NamedTensors = list[tuple[str, Tensor]]


def _weights(model: nn.Module) -> NamedTensors:
    return [(_published(name), p.detach()) for name, p in model.named_parameters()]


def _state(weights: NamedTensors) -> Any:
    return [(name, p.data_ptr(), p.dtype, _writes(p)) for name, p in weights]


def _groups(weights: NamedTensors) -> Iterator[NamedTensors]:
    """Weights that are hashed in one go: on the host each alone, else as many as fit together."""
    group: NamedTensors = []
    for name, p in weights:
        alike = group and (p.dtype, p.device) == (group[0][1].dtype, group[0][1].device)
        size = sum(q.numel() for _, q in group) + p.numel()
        if group and (p.is_cpu or not alike or size > PART):
            yield group
            group = []
        group.append((name, p))
    if group:
        yield group


def _hashes(group: NamedTensors) -> list[tuple[str, bytes]]:
    """The hash of each; small ones of a device come to the host in one copy, which waits for it."""
    if len(group) > 1:
        sizes = [p.numel() for _, p in group]
        parts = torch.cat([p.flatten() for _, p in group]).cpu().split(sizes)
        group = [(n, part.view_as(p)) for (n, p), part in zip(group, parts, strict=True)]
    return [(name, _hash(p)) for name, p in group]


def _published(name: str) -> str:
    """The name in Hugging Face's files: hooks wrap each module in another."""
    return re.sub(r"_original_component\.", "", name)


def _writes(tensor: Tensor) -> int:
    """How often the tensor was written to; inference tensors do not count."""
    return 0 if tensor.is_inference() else tensor._version


def _computed_with(model: Any) -> dict[str, Any]:
    """The configuration where it departs from its class: later classes have more entries."""
    config = model.config
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
        values = _narrowest(part.cpu())
        digest.update(str(values.dtype).encode())
        digest.update(values.contiguous().view(torch.uint8).numpy().data)
    return digest.digest()


def _narrowest(values: Tensor) -> Tensor:
    """The same values in the shortest of three types that holds them exactly."""
    for dtype in (torch.bfloat16, torch.float32):
        narrow = values.to(dtype)
        if torch.equal(narrow.to(values.dtype), values):
            return narrow
    return values

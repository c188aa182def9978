"""What running a model takes, known from its configuration: no weight is read.

The model is built on torch's `meta` device, where tensors have shapes and no values, and its real
blocks run there: torch counts their floating-point operations, and what autograd would keep of
them for a backward pass. How fast this machine does them is measured on one layer of the same
sizes with random weights.

A mixture of experts chooses by values, so its blocks are counted as those of a dense model whose
MLP is as wide as all experts that a token uses.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformer_lens.model_bridge import TransformerBridge
from transformers import Qwen3_5TextConfig, Qwen3Config

from hooked_qwen.forward import BlockArguments, block_arguments, resume
from hooked_qwen.identity import identity_of
from hooked_qwen.load import META, random_model, unhooked
from hooked_qwen.placement import Placement, dtype_called, find_device
from hooked_qwen.threads import fit_threads

DENSE = {"qwen3_moe": Qwen3Config, "qwen3_5_moe_text": Qwen3_5TextConfig}
"The class without experts that a mixture's blocks are counted as."
LONG_ENOUGH = 0.3
"Seconds that a rate is measured for, after one run that does not count."


@dataclass(frozen=True)
class LayerCost:
    """One block on one batch."""

    forward: int
    "floating-point operations"
    backward: int
    "the same, for the gradient to the stream that enters it"
    saved: int
    "bytes that are kept from the forward pass for the backward pass"
    mlp: int
    "of either pass, the operations of the MLP"


@dataclass(frozen=True)
class Rate:
    """How fast a layer of these sizes runs on this machine, in operations a second."""

    forward: float
    both: float
    "forward and backward"
    backward: float
    "backward alone"
    hashed: float
    "bytes of weights a second whose hash is found"


class ModelCost:
    """What a model of a configuration takes."""

    def __init__(self, config: Any, placement: Placement, *, name: str) -> None:
        self.config, self.name = config, name
        self.dtype = dtype_called(placement.model_dtype)

    @cached_property
    def weights(self) -> int:
        """Bytes of all that the loaded model holds.

        TransformerLens adds a bias of zeros for the vocabulary, and nothing for a layer.
        """
        hooked = self._one_of_each
        plain, bare = (
            held_bytes(unhooked(config, dtype=self.dtype))
            for config in (self.config, hooked.original_model.config)
        )
        return plain + held_bytes(hooked) - bare

    @property
    def n_layers(self) -> int:
        return self.config.num_hidden_layers

    @property
    def d_model(self) -> int:
        return self.config.hidden_size

    @property
    def vocabulary(self) -> int:
        return self.config.vocab_size

    def kv_cache(self, rows: int, positions: int) -> int:
        """Bytes of the keys and values of all layers."""
        config = self.config
        head = getattr(config, "head_dim", None) or self.d_model // config.num_attention_heads
        one = rows * positions * config.num_key_value_heads * head * self.dtype.itemsize
        return 2 * self.n_layers * one

    def layers(self, rows: int, positions: int) -> list[LayerCost]:
        """The cost of each block for `rows` prompts of `positions` tokens."""
        if (rows, positions) not in self._counted:
            self._counted[rows, positions] = self._count(rows, positions)
        return self._counted[rows, positions]

    @cached_property
    def _counted(self) -> dict[tuple[int, int], list[LayerCost]]:
        return {}

    @cached_property
    def _dense(self) -> Any:
        return as_dense(self.config)

    @cached_property
    def _one_of_each(self) -> TransformerBridge:
        """The shapes of one layer of each kind: layers of one kind cost the same."""
        config = with_layers(self._dense, [*dict.fromkeys(kinds_of(self._dense))])
        return random_model(config, dtype=self.dtype, device=META, name=self.name)

    def _count(self, rows: int, positions: int) -> list[LayerCost]:
        model, kinds = self._one_of_each, kinds_of(self._dense)
        arguments = block_arguments(model, rows, positions)
        held = {p.untyped_storage()._cdata for p in model.parameters()}
        shape = rows, positions, self.d_model
        mlp = 2 * 3 * rows * positions * self.d_model * self._dense.intermediate_size
        found = {
            kind: _block_cost(model, layer, arguments, shape, held, mlp)
            for layer, kind in enumerate(dict.fromkeys(kinds))
        }
        return [found[kind] for kind in kinds]


def measured_rate(cost: ModelCost, device: str, rows: int, positions: int) -> Rate:
    """Time one layer of a model on `device`, with as many tokens as are run together."""
    where = find_device(device)
    model = one_layer(cost, where)
    x = torch.randn(rows, positions, cost.d_model, device=where).requires_grad_()
    arguments = block_arguments(model, rows, positions)

    def forward() -> Tensor:
        return resume(model, x, 0, arguments)

    with torch.no_grad():
        once = seconds(forward)
    both = seconds(lambda: torch.autograd.grad(forward().sum(), x)[0])
    hashing = seconds(lambda: identity_of(model.original_model))
    counted = cost.layers(rows, positions)[0]
    return Rate(
        forward=counted.forward / once,
        both=(counted.forward + counted.backward) / both,
        backward=counted.backward / max(both - once, 0.1 * both),
        hashed=held_bytes(model) / hashing,
    )


def one_layer(cost: ModelCost, device: torch.device) -> TransformerBridge:
    """The model's first layer with random weights, and a vocabulary of a few tokens."""
    config = with_layers(cost.config, kinds_of(cost.config)[:1])
    config.vocab_size, config.pad_token_id = 32, None
    model = random_model(config, dtype=cost.dtype, device=device, name=cost.name)
    fit_threads(model)
    return model


def kinds_of(config: Any) -> list[str]:
    """What each layer is: full attention, say, or linear; empty where all are alike."""
    return [*(getattr(config, "layer_types", None) or [""] * config.num_hidden_layers)]


def with_layers(config: Any, kinds: Sequence[str]) -> Any:
    """A configuration with layers of these kinds instead of its own."""
    found = deepcopy(config)
    found.num_hidden_layers = len(kinds)
    if getattr(found, "layer_types", None):
        found.layer_types = [*kinds]
    return found


def held_bytes(model: nn.Module) -> int:
    """Bytes of a model's weights and buffers, those that it uses twice counted once."""
    return _bytes([*model.parameters(), *model.buffers()])


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in {id(t): t for t in tensors}.values())


def as_dense(config: Any) -> Any:
    """A mixture of experts as a dense model as wide as the experts that a token uses."""
    if (dense := DENSE.get(config.model_type)) is None:
        return config
    known, given = dense().to_dict(), config.to_dict()
    width = config.num_experts_per_tok * config.moe_intermediate_size
    width += getattr(config, "shared_expert_intermediate_size", None) or 0
    shared = {k: v for k, v in given.items() if k in known and k != "model_type"}
    return dense(**(shared | {"intermediate_size": width}))


def _block_cost(
    model: TransformerBridge,
    layer: int,
    arguments: BlockArguments,
    shape: tuple[int, int, int],
    weights: set[int],
    mlp: int,
) -> LayerCost:
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        # The storage stays alive in `kept`, so that no other gets its address.
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    x = torch.empty(shape, device="meta").requires_grad_()
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FlopCounterMode(display=False) as forward, hooks:
        out = resume(model, x, layer, arguments, stop=layer + 1)
    with FlopCounterMode(display=False) as backward:
        torch.autograd.grad(out.sum(), x)
    saved = sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in weights)
    return LayerCost(forward.get_total_flops(), backward.get_total_flops(), saved, mlp)


def seconds(work: Callable[[], Any]) -> float:
    """How long `work` takes: the mean of the runs that fit into a moment, after one."""
    _finish(work())
    runs, start = 0, time.perf_counter()
    while runs < 1 or time.perf_counter() - start < LONG_ENOUGH:
        _finish(work())
        runs += 1
    return (time.perf_counter() - start) / runs


def _finish(result: Any) -> None:
    """Wait for the device that computes `result`."""
    if isinstance(result, Tensor) and not result.is_cpu:
        result.flatten()[:1].cpu()

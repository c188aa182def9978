"""Two precisions: the model's own, and float32 for everything that is computed from its tensors.

A half-precision tensor is widened once where it enters our arithmetic, and rounded once where an
edit goes back into the model. A float64 model is computed with in float64.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


def model_precision(model: nn.Module) -> torch.dtype:
    """The type of the model's weights."""
    return next(model.parameters()).dtype


def our_precision(model: nn.Module) -> torch.dtype:
    """The type of features, gradients, effects and metrics of this model."""
    dtype = model_precision(model)
    return torch.float32 if dtype in HALF else dtype


def widened(x: Tensor) -> Tensor:
    """`x` in float32 where it is in half precision, else `x` itself."""
    return x.float() if x.dtype in HALF else x


@contextmanager
def computed_in(model: nn.Module, dtype: torch.dtype) -> Generator[None]:
    """Let a model compute in `dtype` inside the block; its own weights are kept beside, and back.

    The same numbers as of the model loaded in `dtype`: what is no weight, such as the rotary
    tables, keeps its precision.
    """
    own = [(tensor, tensor.data) for tensor in (*model.parameters(), *_beside_weights(model))]
    try:
        for tensor, values in own:
            tensor.data = values.to(dtype)
        yield
    finally:
        for tensor, values in own:
            tensor.data = values


def _beside_weights(model: nn.Module) -> Iterator[Tensor]:
    """Buffers of layers that have weights: TransformerLens gives a head without a bias one."""
    for module in model.modules():
        if module._parameters:
            yield from (b for b in module._buffers.values() if b is not None)

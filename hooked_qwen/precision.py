"""Two precisions: the model's own, and float32 for everything that is computed from its tensors.

A half-precision tensor is widened once where it enters our arithmetic, and rounded once where an
edit goes back into the model. A float64 model is computed with in float64.
"""

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

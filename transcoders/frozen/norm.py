"""RMSNorm with its denominator frozen: a multiplication.

    y = x * gain / rms(x)        gain / rms(x) is a constant of the prompt

Axes: `pos` tokens of the prompt, `batch` streams or gradients carried at once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5RMSNorm
from transformers.models.qwen3_5_moe.modeling_qwen3_5_moe import Qwen3_5MoeRMSNorm
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeRMSNorm


def _of_weight(norm: Any) -> tuple[Tensor, float]:
    return norm.weight, norm.variance_epsilon


def _around_one(norm: Any) -> tuple[Tensor, float]:
    # Here the weight is the gain's distance from one.
    return 1 + norm.weight, norm.eps


NORMS: dict[type, Callable[[Any], tuple[Tensor, float]]] = {
    Qwen2RMSNorm: _of_weight,
    Qwen3RMSNorm: _of_weight,
    Qwen3MoeRMSNorm: _of_weight,
    Qwen3_5RMSNorm: _around_one,
    Qwen3_5MoeRMSNorm: _around_one,
}
"Gain and epsilon of each kind of norm. Exactly these: a subclass may compute something else."


@dataclass(frozen=True)
class FrozenNorm:
    """What a norm multiplies the residual stream of each token by."""

    gain: Float[Tensor, " d_model"]
    per_rms: Float[Tensor, " pos"]
    "1 / rms of each token in the prompt"

    @property
    def scale(self) -> Float[Tensor, "pos d_model"]:
        """The factor of every coordinate; the map is diagonal, so it is its own adjoint."""
        return self.per_rms[:, None] * self.gain


def freeze_norm(norm: Any, x: Float[Tensor, "pos d_model"]) -> FrozenNorm:
    """The norm as it is where it reads `x`.

    Raises `ValueError` for a kind of norm that is not known.
    """
    gain, epsilon = _gain_and_epsilon(norm)
    per_rms = torch.rsqrt(x.pow(2).mean(-1) + epsilon)
    return FrozenNorm(gain.detach().to(x), per_rms)


def gain_of(norm: Any) -> Float[Tensor, " d_model"]:
    """What a norm multiplies every coordinate by, whatever it reads.

    Raises `ValueError` for a kind of norm that is not known.
    """
    return _gain_and_epsilon(norm)[0].detach()


def _gain_and_epsilon(norm: Any) -> tuple[Tensor, float]:
    kind = type(norm)
    if kind not in NORMS:
        known = ", ".join(each.__name__ for each in NORMS)
        raise ValueError(f"cannot freeze the norm {kind.__name__}: expected one of {known}")
    return NORMS[kind](norm)

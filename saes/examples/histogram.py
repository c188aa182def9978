"""How often each activation of a feature comes.

    {"first": k, "per_doubling": s, "counts": [n_0, n_1, ...]}

n_i counts tokens whose activation is from 2^((k + i) / s) up to 2^((k + i + 1) / s): steps of a
logarithmic scale, for nobody knows the largest activation before the text is read.

Axes: `steps` of the whole scale.
"""

from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from saes.features import Features

PER_DOUBLING = 3
LOWEST, HIGHEST = -14, 16
"Powers of two at the ends of the scale; what lies beyond counts there."
N_STEPS = (HIGHEST - LOWEST) * PER_DOUBLING

Histogram = dict[str, Any]
Counts = Int[Tensor, "features steps"]


def no_counts(features: int, device: torch.device) -> Counts:
    """The counts of features that were never active."""
    return torch.zeros(features, N_STEPS, dtype=torch.int32, device=device)


def count(counts: Counts, f: Features, mask: Bool[Tensor, "batch pos"]) -> None:
    """Add the positive activations of `f`, in which a feature has one slot of a token, as encoded.

    What is not needed counts as none, so that the host waits for nothing.
    """
    values = (f.value * mask.unsqueeze(-1)).float()
    step = (values.clamp_min(2.0**LOWEST).log2() * PER_DOUBLING).floor() - LOWEST * PER_DOUBLING
    at = f.index * N_STEPS + step.long().clamp(0, N_STEPS - 1)
    counts.view(-1).index_add_(0, at.flatten(), (values > 0).to(counts.dtype).flatten())


def histogram(counts: Int[Tensor, " steps"]) -> Histogram | None:
    """Of one feature, from its smallest activation to its largest; None where there is none."""
    seen = counts.nonzero()[:, 0].tolist()
    if not seen:
        return None
    return {
        "first": seen[0] + LOWEST * PER_DOUBLING,
        "per_doubling": PER_DOUBLING,
        "counts": counts[seen[0] : seen[-1] + 1].tolist(),
    }

"""Numbers with 95 % bootstrap intervals, as the record of a rerun holds them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.graph import rounded
from saes.evaluation.bootstrap import Interval, interval, ratio_interval, resamples


def mean_of(values: Float[Tensor, " prompts"]) -> dict[str, Any]:
    """A mean over prompts as a record holds it, with its 95 % bootstrap interval."""
    values = values.double()
    return figure(float(values.mean()), interval(resamples(len(values)) @ values))


def figure(value: float, ends: Interval) -> dict[str, Any]:
    """A number and its interval, as a record holds them."""
    low_high = None if ends is None else [rounded(end) for end in ends]
    return {"value": rounded(value), "interval": low_high}


def per_token(values: Float[Tensor, "blocks predicted"]) -> dict[str, Any]:
    """A mean over the tokens of a text, its interval by drawing blocks again."""
    sums, counts = values.double().sum(1), torch.full((len(values),), float(values.shape[1]))
    return figure(float(values.double().mean()), ratio_interval(sums, counts))

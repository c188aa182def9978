"""What an architecture is: what it learns, its loss, and what is left of it in the dictionary.

Training and loading ask nothing else of one, so that all there is of it stands in its own module.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saes.training.config import TrainConfig
from saes.training.step import Dead, DictionaryWeights, Numbers, ScratchMemory, StepResult


@dataclass(frozen=True, kw_only=True)
class TrainingStart:
    """What a dictionary begins with, before its architecture adds to it."""

    weights: DictionaryWeights
    x: Float[Tensor, "tokens d_source"]
    "normalised activations of the first batches"
    k: int | None
    sparsity: float
    "the penalty's coefficient that the user gave"


@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """What a step is told beside the weights and the batch."""

    k: int | None
    prefixes: tuple[int, ...]
    "nested widths, rising; the last is the whole"
    config: TrainConfig
    numbers: Numbers
    "as the architecture began them, or its last step left them"
    dead: Dead
    "none where the architecture revives none"
    memory: ScratchMemory


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What an architecture learns besides the weights that all have, and goes by, at the start."""

    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    "saved in checkpoints, trained by Adam"
    numbers: Numbers = field(default_factory=dict)
    "saved in checkpoints; a step gives new values of these, and of no others"


@dataclass(frozen=True, kw_only=True)
class FoldedFeatures:
    """A feature as the finished dictionary computes it: gain * w x + bias, on above a threshold."""

    gain: Float[Tensor, " features"]
    bias: Float[Tensor, " features"]
    threshold: Float[Tensor, " features"] | None = None


def nothing_else(start: TrainingStart) -> Begun:
    """For architectures that learn what all learn."""
    return Begun()


def fold_encoder(weights: DictionaryWeights) -> FoldedFeatures:
    """For architectures whose pre-activation is the encoder's."""
    return FoldedFeatures(gain=torch.ones_like(weights.b_enc), bias=weights.b_enc)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How few features are kept on, in training and in the finished dictionary."""

    step: Callable[
        [
            DictionaryWeights,
            Float[Tensor, "tokens d_source"],
            Float[Tensor, "tokens d_target"],
            StepOptions,
        ],
        StepResult,
    ]
    "loss and gradients of one batch of normalised activations; it must not wait for its device"
    begin: Callable[[TrainingStart], Begun] = nothing_else
    fold: Callable[[DictionaryWeights], FoldedFeatures] = fold_encoder
    rates: Mapping[str, float] = field(default_factory=dict)
    "learning rate of a parameter of its own over that of the others, where it is not 1"
    threshold: Literal["none", "learnt", "calibrated"] = "none"
    "of the finished dictionary: folded from what was learnt, or set by what follows in the text"
    needs_k: bool = False
    revives: bool = False
    "AuxK gives features that no token chooses a gradient"
    nested: Callable[[int], tuple[int, ...]] | None = None
    "widths below the whole that must reconstruct alone where none are given; None: it has no such"

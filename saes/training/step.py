"""What the steps of all architectures share: weights, memory, and what a step gives back.

Numbers that a step gives stay on its device: reading one would make the host wait until all that
was asked of the device is done, several times a step and dictionary.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Numbers = dict[str, Tensor]
"Single numbers by name, each a tensor without axes on the device of the weights."
ROOM = 8
"Memory that grows grows by one part in this more."
# What every architecture learns (a skip connection: transcoders that have one); all else is `own`.
CORE = ("W_enc", "b_enc", "W_dec", "b_dec", "W_skip")


@dataclass(frozen=True, kw_only=True)
class DictionaryWeights:
    """What a dictionary learns, or the gradients of it."""

    W_enc: Float[Tensor, "features d_source"]
    b_enc: Float[Tensor, " features"]
    W_dec: Float[Tensor, "features d_target"]
    b_dec: Float[Tensor, " d_target"]
    W_skip: Float[Tensor, "d_target d_source"] | None = None
    own: Mapping[str, Tensor] = field(default_factory=dict)
    "what only this architecture learns, such as JumpReLU's `log_threshold`"

    @classmethod
    def of(cls, named: Mapping[str, Tensor]) -> "DictionaryWeights":
        """From all tensors by name, as `named` gives them."""
        core = {name: named[name] for name in CORE if name in named}
        return cls(**core, own={name: value for name, value in named.items() if name not in CORE})

    def named(self) -> dict[str, Tensor]:
        """The tensors that are there."""
        core = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "own"}
        return {name: value for name, value in core.items() if value is not None} | dict(self.own)


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Gradients of one batch and what the log shows of it."""

    gradients: DictionaryWeights
    along: Float[Tensor, " features"]
    """product of each decoder row with its gradient: the part that would only change the row's
    length, which the trainer takes out as rows are kept at norm 1"""
    loss: Float[Tensor, ""]
    squared_error: Float[Tensor, ""]
    "of the whole reconstruction, summed over the batch"
    fired: Bool[Tensor, " features"]
    "whether the feature was on at any token"
    l0: Float[Tensor, ""]
    numbers: Numbers = field(default_factory=dict)
    "what the architecture's next step goes by"


@dataclass(frozen=True, kw_only=True)
class Dead:
    """The features that have not fired for long, which AuxK revives."""

    features: Int[Tensor, " listed"]
    counted: Bool[Tensor, " listed"] | None = None
    """which of those listed are dead, where the list is padded to the length that a recorded step
    (a CUDA graph) was recorded with; None: all"""

    def __len__(self) -> int:
        return len(self.features)


class ScratchMemory:
    """Large tensors that the steps of one or several dictionaries write into in turn.

    The system clears fresh memory first, which costs as much time as the sparse products do.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[str, torch.dtype, torch.device], Tensor] = {}

    def take(
        self, use: str, rows: int, columns: int, like: Tensor
    ) -> Float[Tensor, "rows columns"]:
        """Memory for `use`, with anything in it, until `use` is taken again for such tensors."""
        # A view changes neither dtype nor device, so each combination has memory of its own.
        size, key = rows * columns, (use, like.dtype, like.device)
        kept = self._kept.get(key)
        if kept is None:
            kept = self._kept[key] = like.new_empty(size)
        elif len(kept) < size:
            # With room: batches differ by a few tokens, and recordings keep what was too small.
            kept = self._kept[key] = like.new_empty(size + size // ROOM)
        return kept[:size].view(rows, columns)

    def held(self) -> tuple[Tensor, ...]:
        """All of it, for those who write into it later: `take` lets go of what is too small.

        A CUDA graph writes to the addresses that it was recorded with, whoever holds them by then.
        """
        return tuple(self._kept.values())


def sum_of_squares(x: Float[Tensor, "*rows columns"]) -> Float[Tensor, ""]:
    """Row by row: no memory for the squares, and no rounding of one long sum, 1 % at 10^8."""
    return precise(x.norm(dim=-1).square().sum())


def precise(number: Float[Tensor, ""] | Int[Tensor, ""]) -> Float[Tensor, ""]:
    """In float64, as Python's numbers are."""
    return number.to(_widest(number.device))


def number_like(value: float, like: Tensor) -> Float[Tensor, ""]:
    """A `precise` number on the device of `like`."""
    return torch.tensor(value, dtype=_widest(like.device), device=like.device)


def _widest(device: torch.device) -> torch.dtype:
    # Apple's GPU has no float64.
    return torch.float32 if device.type == "mps" else torch.float64

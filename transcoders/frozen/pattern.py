"""What each token takes of the values of every token before it, frozen: one matrix for each head.

A whole pattern has heads x tokens^2 numbers. Where there is no room for it, it is made again from
queries and keys whenever something is multiplied with it, some queries at a time.

Axes: `groups` value heads, `shared` heads that share one, `query` and `key` tokens of the prompt,
`upto` the first of them, `columns` vectors multiplied at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

BLOCK = 2**26
"Bytes of a pattern that are made at a time."


@runtime_checkable
class Pattern(Protocol):
    """Lower triangular over tokens; a constant of the prompt."""

    @property
    def heads(self) -> tuple[int, int]:
        """Value heads, and the heads that share each."""
        ...

    def rows(
        self, queries: Int[Tensor, " some"], upto: int
    ) -> Float[Tensor, "groups shared some upto"]:
        """What some queries take of the first keys."""
        ...

    def forward(
        self, v: Float[Tensor, "groups key columns"]
    ) -> Float[Tensor, "groups shared query columns"]:
        """The mixtures of values."""
        ...

    def adjoint(
        self, z: Float[Tensor, "groups shared upto columns"]
    ) -> Float[Tensor, "groups upto columns"]:
        """The gradient to the values; queries after those of `z` have none."""
        ...


@dataclass(frozen=True)
class PatternInMemory:
    """A pattern that is in memory."""

    tensor: Float[Tensor, "groups shared query key"]

    @property
    def heads(self) -> tuple[int, int]:
        return self.tensor.shape[0], self.tensor.shape[1]

    def rows(
        self, queries: Int[Tensor, " some"], upto: int
    ) -> Float[Tensor, "groups shared some upto"]:
        return self.tensor[:, :, queries, :upto]

    def forward(
        self, v: Float[Tensor, "groups key columns"]
    ) -> Float[Tensor, "groups shared query columns"]:
        return self.tensor @ v.unsqueeze(1)

    def adjoint(
        self, z: Float[Tensor, "groups shared upto columns"]
    ) -> Float[Tensor, "groups upto columns"]:
        upto = z.shape[2]
        return adjoint_of(self.tensor[:, :, :upto, :upto], z)


@dataclass(frozen=True)
class Softmax:
    """The pattern of attention, from its rotated queries and keys."""

    query: Float[Tensor, "groups shared query d_head"]
    key: Float[Tensor, "groups key d_head"]
    scaling: float
    window: int | None = None
    "keys that a query sees at most, itself among them"
    at_once: int = BLOCK

    @property
    def heads(self) -> tuple[int, int]:
        return self.query.shape[0], self.query.shape[1]

    def rows(
        self, queries: Int[Tensor, " some"], upto: int
    ) -> Float[Tensor, "groups shared some upto"]:
        last = max(upto, int(queries.max()) + 1)
        scores = self.query[:, :, queries] @ self.key[:, None, :last].mT * self.scaling
        scores.masked_fill_(self._hidden(queries, last), -torch.inf)
        # In float32, as in the models, whatever their precision.
        return scores.softmax(-1, dtype=torch.float32).to(scores)[..., :upto]

    def _hidden(self, queries: Int[Tensor, " some"], upto: int) -> Bool[Tensor, "some upto"]:
        behind = queries[:, None] - torch.arange(upto, device=queries.device)
        hidden = behind < 0
        return hidden if self.window is None else hidden | (behind >= self.window)

    def forward(
        self, v: Float[Tensor, "groups key columns"]
    ) -> Float[Tensor, "groups shared query columns"]:
        blocks = self._blocks(v.shape[1])
        return torch.cat([self.rows(q, upto) @ v[:, None, :upto] for q, upto in blocks], 2)

    def adjoint(
        self, z: Float[Tensor, "groups shared upto columns"]
    ) -> Float[Tensor, "groups upto columns"]:
        v = z.new_zeros(len(z), *z.shape[2:])
        for queries, upto in self._blocks(z.shape[2]):
            v[:, :upto] += adjoint_of(self.rows(queries, upto), z[:, :, queries])
        return v

    def _blocks(self, upto: int) -> Iterator[tuple[Int[Tensor, " some"], int]]:
        """The first queries, some at a time, and how many keys these see."""
        heads = self.query.shape[0] * self.query.shape[1]
        for first, last in blocks(upto, heads * self.key.element_size(), self.at_once):
            yield torch.arange(first, last, device=self.key.device), last


class Room:
    """Bytes that patterns may take, given to those that ask first."""

    def __init__(self, bytes_left: int) -> None:
        self._left = bytes_left

    def takes(self, size: int) -> bool:
        """Whether `size` bytes fit; if so they are taken."""
        fits = size <= self._left
        if fits:
            self._left -= size
        return fits


def blocks(upto: int, size: int, at_once: int) -> list[tuple[int, int]]:
    """Rows of a square matrix, some at a time: `at_once` bytes where a number has `size`."""
    some = max(1, at_once // (size * upto))
    return [(first, min(first + some, upto)) for first in range(0, upto, some)]


def adjoint_of(
    pattern: Float[Tensor, "groups shared some upto"],
    z: Float[Tensor, "groups shared some columns"],
) -> Float[Tensor, "groups upto columns"]:
    """Each group's sum over its heads of pattern.T @ z."""
    # One product for each group: its heads stand one after another along the queries.
    turned = pattern.permute(0, 3, 1, 2)
    return turned.reshape(*turned.shape[:2], -1) @ z.flatten(1, 2)

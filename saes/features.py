"""Sparse features: which are on and how strongly, token by token.

Of a dictionary's features a token has about k. Everything downstream of the encoder goes by
indices and values; nothing as wide as the dictionary outlives the product that made it.

    index [*batch, slots]      the feature in each slot
    value [*batch, slots]      its value; slots that are not needed have value 0

A feature may stand in several slots of a token: its value is their sum (`coalesced` adds them up).

Axes: `slots` places for features, the same number for every token; `chosen` features asked for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor

PENDING = 1 << 20
"Features that sums hold before they are added up."
DENSE = 1 << 24
"Values of features, on and off, that are there at a time where all are looked at."


@dataclass(frozen=True)
class Features:
    """Features of tokens that are on, of `width` that there are."""

    index: Int[Tensor, "*batch slots"]
    value: Float[Tensor, "*batch slots"]
    width: int
    whole: bool = False
    "whether slot i holds feature i, as where the features are a tensor's own coordinates"

    @classmethod
    def none(cls, shape: Sequence[int], width: int, like: Tensor) -> "Features":
        """No feature on any token; values of the type and on the device of `like`."""
        value = like.new_zeros(*shape, 0)
        return cls(value.long(), value, width)

    @classmethod
    def of_coordinates(cls, value: Float[Tensor, "*batch features"]) -> "Features":
        """Every feature of every token, on or off."""
        width = value.shape[-1]
        index = torch.arange(width, device=value.device).expand(value.shape)
        return cls(index, value, width, whole=True)

    def __getitem__(self, at: Any) -> "Features":
        """Some of the tokens; `at` indexes the leading axes."""
        return replace(self, index=self.index[at], value=self.value[at])

    def columns(self) -> Int[Tensor, "*batch"]:
        """The place of each token along the last axis of tokens."""
        places = torch.arange(self.index.shape[-2], device=self.index.device)
        return places.expand(self.index.shape[:-1])

    def expand(self, *shape: int) -> "Features":
        """The same for every token of `shape`."""
        index, value = (x.expand(*shape, self.slots) for x in (self.index, self.value))
        return replace(self, index=index, value=value)

    def view(self, shape: Sequence[int]) -> "Features":
        """The same tokens along axes of `shape`."""
        index, value = (x.view(*shape, self.slots) for x in (self.index, self.value))
        # Said in full: in generation this is done at every site of every token.
        return Features(index, value, self.width, self.whole)

    @property
    def slots(self) -> int:
        return self.index.shape[-1]

    def dense(self) -> Float[Tensor, "*batch features"]:
        """Every feature's value."""
        if self.whole:
            return self.value
        zeros = self.value.new_zeros(*self.value.shape[:-1], self.width)
        return zeros.scatter_add(-1, self.index, self.value)

    def dense_parts(self) -> Iterator[tuple[slice, Float[Tensor, "*batch part"]]]:
        """`dense`, some features after the other: at most `DENSE` values at a time."""
        size = max(1, DENSE // max(1, self.value.shape[:-1].numel()))
        if size >= self.width:
            yield slice(0, self.width), self.dense()
            return
        for start in range(0, self.width, size):
            part = slice(start, min(start + size, self.width))
            yield part, self.of(torch.arange(part.start, part.stop, device=self.index.device))

    def of(self, chosen: Int[Tensor, " chosen"]) -> Float[Tensor, "*batch chosen"]:
        """The values of `chosen` features; each at most once."""
        if self.whole:
            return self.value[..., chosen]
        if not len(chosen):
            return self.value.new_zeros(*self.value.shape[:-1], 0)
        known, order = chosen.sort()
        column = torch.searchsorted(known, self.index.contiguous()).clamp(max=len(known) - 1)
        value = torch.where(known[column] == self.index, self.value, 0.0)
        found = value.new_zeros(*value.shape[:-1], len(known)).scatter_add(-1, column, value)
        return found[..., order.argsort()]

    def of_each(self, features: Sequence[int]) -> Float[Tensor, "nodes *batch"]:
        """The values of some features, the same one more than once if asked for."""
        chosen = {feature: i for i, feature in enumerate(dict.fromkeys(features))}
        found = self.of(torch.tensor(list(chosen), device=self.index.device)).movedim(-1, 0)
        if len(chosen) == len(features):
            return found
        return found[torch.tensor([chosen[f] for f in features], device=self.index.device)]

    def times(self, factor: Num[Tensor, "..."] | Bool[Tensor, "..."]) -> "Features":
        """Each slot's value times `factor`, which may be a mask."""
        return replace(self, value=self.value * factor)

    def only(self, these: Bool[Tensor, "*batch slots"]) -> "Features":
        """The features in `these` slots, in as few slots as hold them at every token."""
        if self.whole or not self.slots:
            return self.times(these)
        slots = int(these.sum(-1).max()) if these.numel() else 0
        kept = these.byte().sort(dim=-1, descending=True, stable=True).indices[..., :slots]
        value = (self.value * these).gather(-1, kept)
        return replace(self, index=self.index.gather(-1, kept), value=value)

    def plus(self, other: "Features") -> "Features":
        """The sum, in the slots of both; axes of length 1 are broadcast."""
        shape = torch.broadcast_shapes(self.value.shape[:-1], other.value.shape[:-1])
        if self.whole and other.whole:
            return Features.of_coordinates(self.value + other.value)
        if not (self.slots and other.slots):
            return (self if self.slots else other).expand(*shape)
        a, b = self.expand(*shape), other.expand(*shape)
        index = torch.cat([a.index, b.index], -1)
        return Features(index, torch.cat([a.value, b.value], -1), self.width)

    def minus(self, other: "Features") -> "Features":
        """The difference, in the slots of both."""
        return self.plus(replace(other, value=-other.value))

    def coalesced(self) -> "Features":
        """The same with every feature in one slot of a token: the others of it have value 0."""
        if self.whole or not self.slots:
            return self
        index, order = self.index.sort(stable=True)
        value = self.value.gather(-1, order)
        first = F.pad(index[..., 1:] != index[..., :-1], (1, 0), value=True)
        slot = first.long().cumsum(-1) - 1
        sums = torch.zeros_like(value).scatter_add(-1, slot, value)
        return replace(self, index=index, value=sums.gather(-1, slot) * first)

    def on(self) -> "Features":
        """One for each feature that is on."""
        return replace(self, value=(self.value != 0).to(self.value))


def cat(parts: Sequence[Features], axis: int = 0) -> Features:
    """Tokens one after another along an axis; slots are filled up to the longest."""
    if len(parts) == 1:
        return parts[0]
    if parts[0].whole:
        return Features.of_coordinates(torch.cat([part.value for part in parts], axis))
    slots = max(part.slots for part in parts)
    index, value = (
        torch.cat([F.pad(getattr(part, name), (0, slots - part.slots)) for part in parts], axis)
        for name in ("index", "value")
    )
    return replace(parts[0], index=index, value=value)


def largest(pre: Float[Tensor, "tokens features"], k: int, *, signed: bool) -> Features:
    """The `k` largest pre-activations of each token, where positive unless `signed`.

        f_i = relu(pre_i) if i is among the k largest, else 0        signed: pre_i, no relu

    Source: Gao et al. 2024, arXiv:2406.04093.
    """
    value, index = pre.topk(k, dim=-1, sorted=False)
    return Features(index, value if signed else value.relu(), pre.shape[-1])


def nonzero(f: Float[Tensor, "tokens features"]) -> Features:
    """The features that are not zero."""
    token, feature = f.nonzero(as_tuple=True)
    return packed(token, feature, f[token, feature], len(f), f.shape[-1])


def packed(
    token: Int[Tensor, " on"],
    feature: Int[Tensor, " on"],
    value: Float[Tensor, " on"],
    tokens: int,
    width: int,
) -> Features:
    """Features given one by one, those of a token next to each other, as many slots as needed."""
    counts = torch.zeros(tokens, dtype=torch.long, device=value.device)
    counts.index_add_(0, token, torch.ones_like(token))
    slot = torch.arange(len(token), device=value.device) - (counts.cumsum(0) - counts)[token]
    slots = int(counts.max()) if len(token) else 0
    index = token.new_zeros(tokens, slots)
    values = value.new_zeros(tokens, slots)
    index[token, slot], values[token, slot] = feature, value
    return Features(index, values, width)


class FeatureSums:
    """Sums of features at each position, added up over tokens in float64."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._pending, self._width, self._whole = 0, 0, False

    def add(
        self,
        f: Features,
        position: Int[Tensor, "*batch"],
        counts: Bool[Tensor, "*batch slots"],
    ) -> None:
        """Add the slots that count, each token at its `position`."""
        self._width, self._whole = f.width, f.whole
        key = position.unsqueeze(-1) * f.width + f.index
        # What does not count stands under one more number, which is dropped at the end.
        key = torch.where(counts, key, -1)
        self._parts.append((key.flatten(), f.value.double().flatten()))
        self._pending += key.numel()
        if self._pending > PENDING:
            self._parts, self._pending = [self._merged()], 0

    def _merged(self) -> tuple[Tensor, Tensor]:
        """Every key once; those that do not count are first, if there are any."""
        keys, values = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        known, place = keys.unique(return_inverse=True)
        sums = torch.zeros_like(known, dtype=torch.double).index_add_(0, place, values)
        return known, sums

    def entries(self) -> tuple[Int[Tensor, " on"], Int[Tensor, " on"], Float[Tensor, " on"]]:
        """Position, feature and sum of what was added, in order."""
        known, sums = self._merged()
        on = (known >= 0).nonzero().squeeze(-1)
        known, sums = known[on], sums[on]
        return known // self._width, known % self._width, sums

    def mean(self, counts: Float[Tensor, " pos"], dtype: torch.dtype) -> Features:
        """The sums at each position over its `counts`."""
        position, feature, total = self.entries()
        value = (total / counts[position]).to(dtype)
        found = packed(position, feature, value, len(counts), self._width)
        return Features.of_coordinates(found.dense()) if self._whole else found


def weighted_rows(f: Features, rows: Float[Tensor, "features d"]) -> Float[Tensor, "*batch d"]:
    """The sum over features of value times row, without a matrix of all features."""
    shape = f.value.shape[:-1]
    if f.whole:
        return f.value @ rows
    if not f.slots or not f.value.numel():
        return rows.new_zeros(*shape, rows.shape[1])
    bags = F.embedding_bag(
        f.index.reshape(-1, f.slots),
        rows,
        per_sample_weights=f.value.reshape(-1, f.slots).to(rows),
        mode="sum",
    )
    return bags.view(*shape, rows.shape[1])


def row_products(
    x: Float[Tensor, "*batch d"],
    rows: Float[Tensor, "features d"],
    index: Int[Tensor, "*batch slots"],
) -> Float[Tensor, "*batch slots"]:
    """The product of each token's vector with the rows of its features.

    This is an embedding bag's gradient to its weights, which never forms `[*batch, slots, d]`.
    """
    slots = index.shape[-1]
    if not index.numel():
        return x.new_zeros(index.shape)
    flat = x.reshape(-1, x.shape[-1])
    bag = torch.arange(len(flat), device=x.device)
    products = torch.ops.aten._embedding_bag_per_sample_weights_backward(
        flat.contiguous(),
        rows,
        index.reshape(-1),
        bag * slots,
        bag.repeat_interleave(slots),
        0,
    )
    return products.view(index.shape)

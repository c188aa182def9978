"""What writes to the residual stream of one prompt, where its MLPs are replaced by transcoders.

    token      an embedding
    feature    an active feature: its activation times its decoder row, at each layer it writes
    error      what the transcoders of a layer miss of its MLP's output
    bias       constants: decoder biases, and what the biases of attention add

Sources stand in one order: the tokens, then layer by layer and token by token the features that
write there first, the error, the bias. A vector that reads layer L has sources in a prefix of it.

Where nodes are pinned (`Pinned`), features among them are no sources, and what they write where
they stand is part of the bias; an error among them is a bias too.

Axes: `sources`; `pos` tokens of the prompt.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.features import Features
from saes.on_demand import InTurn, each
from transcoders.frozen.model import FrozenModel, Recorded

TOKEN, FEATURE, ERROR, BIAS = range(4)
ROWS_AT_ONCE = 2**26
"Bytes of what is written that are made at a time, where they are not kept."


@dataclass(frozen=True)
class Pinned:
    """Nodes held at their values in a prompt, and what leaves its MLPs then."""

    mlp_out: Mapping[Site, Float[Tensor, "pos d_model"]]
    "where it is not what the MLP gives"
    written: Mapping[Site, Float[Tensor, "pos d_model"]]
    "by pinned features, where they stand"
    features: Callable[[str, Features], Bool[Tensor, "pos slots"]]
    "which features of a dictionary are pinned"
    errors: Mapping[Site, Bool[Tensor, " pos"]]
    "at which tokens the error of a site is"


@dataclass(frozen=True)
class Active:
    """The active features of one dictionary, by token, then by number."""

    position: Int[Tensor, " on"]
    feature: Int[Tensor, " on"]
    value: Float[Tensor, " on"]

    @classmethod
    def of(
        cls,
        dictionary: SparseDictionary,
        x: Float[Tensor, "pos d_model"],
        pinned: Pinned | None = None,
    ) -> "Active":
        """Those that are on where `x` is read, and not pinned."""
        f = dictionary.encode(x)
        if pinned is not None:
            f = f.times(~pinned.features(dictionary.name, f))
        token, slot = (f.value != 0).nonzero(as_tuple=True)
        feature, value = f.index[token, slot], f.value[token, slot]
        order = (token * f.width + feature).argsort()
        return cls(token[order], feature[order], value[order])


@dataclass(frozen=True)
class LayerWrites:
    """What is written at one layer, by token."""

    source: Int[Tensor, " written"]
    "which source each row is of"
    position: Int[Tensor, " written"]
    start: tuple[int, ...]
    "where each token's rows begin, and at the end their number"
    dictionary: Int[Tensor, " written"]
    "number of the dictionary, -1 for an error, -2 for a bias"
    feature: Int[Tensor, " written"]
    value: Float[Tensor, " written"]
    error: Float[Tensor, "pos d_model"]
    bias: Float[Tensor, "pos d_model"]
    own: bool
    "whether its sources write here and nowhere else: then rows stand in the order of sources"

    @cached_property
    def per_token(self) -> int | None:
        """How many rows a token has, where all have the same number."""
        counts = {after - before for before, after in pairwise(self.start)}
        return counts.pop() if len(counts) == 1 else None

    def span(self, first: int, last: int) -> slice:
        """The rows of the tokens from `first` up to `last`."""
        return slice(self.start[first], self.start[last])

    def rows(
        self, site: Site, dictionaries: InTurn, first: int = 0, last: int | None = None
    ) -> Float[Tensor, "written d_model"]:
        """What each of those writes that stand at the tokens from `first` up to `last`, or all."""
        span = self.span(first, len(self.error) if last is None else last)
        these = torch.arange(span.start, span.stop, device=self.source.device)
        return self.some(site, dictionaries, these)

    def some(
        self, site: Site, dictionaries: InTurn, these: Int[Tensor, " some"]
    ) -> Float[Tensor, "some d_model"]:
        """What some of them write, by the numbers of their rows."""
        found = self.error.new_empty(len(these), self.error.shape[1])
        numbers, position = self.dictionary[these], self.position[these]
        for number, written in ((-1, self.error), (-2, self.bias)):
            found[numbers == number] = written[position[numbers == number]]
        for number in numbers[numbers >= 0].unique().tolist():
            of = numbers == number
            W_dec = written_rows(dictionaries[number], site)
            found[of] = W_dec[self.feature[these[of]]] * self.value[these[of], None]
        return found

    def parts(self, upto: int, size: int = ROWS_AT_ONCE) -> Iterator[tuple[int, int]]:
        """The first tokens, so many at a time that their rows take `size` bytes, at least one."""
        most, first = size // self.error[0].nbytes, 0
        for last in range(1, upto + 1):
            if last == upto or self.start[last + 1] - self.start[first] > most:
                yield first, last
                first = last


@dataclass(frozen=True)
class Sources:
    """Every source of a prompt, as arrays in their order."""

    kind: Int[Tensor, " sources"]
    dictionary: Int[Tensor, " sources"]
    "number of a feature's dictionary; -1 for others"
    layer: Int[Tensor, " sources"]
    "where it writes first, -1 for tokens"
    feature: Int[Tensor, " sources"]
    position: Int[Tensor, " sources"]
    activation: Float[Tensor, " sources"]
    "of features; the norm of what others write"
    layers: tuple[LayerWrites, ...]

    def __len__(self) -> int:
        return len(self.kind)

    def before(self, layer: int) -> int:
        """How many sources write below `layer`: those that can reach what it reads."""
        return int((self.layer < layer).sum())


def written_rows(dictionary: SparseDictionary, site: Site) -> Float[Tensor, "features d_model"]:
    """What each feature of a dictionary writes at one of its sites."""
    return dictionary.by_site(dictionary.W_dec)[site]


def sources_of(
    dictionaries: InTurn,
    writes: Sequence[Sequence[Site]],
    frozen: FrozenModel,
    recorded: Recorded,
    pinned: Pinned | None = None,
) -> Sources:
    """The sources of a prompt whose run is `recorded`; `writes` are each dictionary's."""
    active = each(dictionaries, lambda d: Active.of(d, recorded.mlp_in[d.source.layer], pinned))
    number_of: dict[int, Tensor] = {}
    columns, layers = [_token_columns(recorded.embed)], []
    total = frozen.n_tokens
    for layer, frozen_layer in enumerate(frozen.layers):
        writing = [i for i, sites in enumerate(writes) if Site("mlp_out", layer) in sites]
        error, bias = _rest(dictionaries, writing, active, frozen_layer.skip, recorded, layer)
        site, held = Site("mlp_out", layer), None
        if pinned is not None:
            constant = pinned.written.get(site, torch.zeros_like(error))
            error, bias, held = error - constant, bias + constant, pinned.errors.get(site)
        bias = bias + frozen_layer.constant()
        here = [i for i in writing if min(writes[i]).layer == layer]
        entries = _entries([active[i] for i in here], here, error, bias, held)
        order = _by_token(entries["position"])
        entries = {name: column[order] for name, column in entries.items()}
        numbers = torch.arange(total, total + len(order), device=error.device)
        for i in here:
            number_of[i] = numbers[entries["dictionary"] == i]
        columns.append(
            entries
            | {
                "dictionary": entries["dictionary"].clamp(min=-1),
                "layer": torch.full_like(numbers, layer),
            }
        )
        total += len(order)
        later = [i for i in writing if i not in here]
        own = not later and all(len(writes[i]) == 1 for i in here)
        written = _layer_writes(entries, numbers, active, later, number_of)
        layers.append(LayerWrites(**written, error=error, bias=bias, own=own))
    joined = {name: torch.cat([part[name] for part in columns]) for name in columns[0]}
    return Sources(
        kind=joined["kind"],
        dictionary=joined["dictionary"],
        layer=joined["layer"],
        feature=joined["feature"],
        position=joined["position"],
        activation=joined["value"],
        layers=tuple(layers),
    )


def _token_columns(embed: Tensor) -> dict[str, Tensor]:
    position = torch.arange(len(embed), device=embed.device)
    none = torch.full_like(position, -1)
    return {
        "position": position,
        "kind": torch.full_like(position, TOKEN),
        "dictionary": none,
        "layer": none,
        "feature": none,
        "value": embed.norm(dim=-1),
    }


def _rest(
    dictionaries: InTurn,
    writing: Sequence[int],
    active: Sequence[Active],
    skip: Tensor | None,
    recorded: Recorded,
    layer: int,
) -> tuple[Tensor, Tensor]:
    """A layer's error and the sum of its decoders' biases, at every token."""
    site = Site("mlp_out", layer)
    error, bias = recorded.mlp_out[layer].clone(), torch.zeros_like(recorded.mlp_out[layer])
    for i in writing:
        on, dictionary = active[i], dictionaries[i]
        W_dec = written_rows(dictionary, site)
        at_once = max(1, ROWS_AT_ONCE // W_dec[0].nbytes)
        for first in range(0, len(on.feature), at_once):
            part = slice(first, first + at_once)
            rows = W_dec[on.feature[part]] * on.value[part, None]
            error.index_add_(0, on.position[part], rows, alpha=-1)
        bias += dictionary.by_site(dictionary.b_dec)[site]
    if skip is not None:
        error -= recorded.mlp_in[layer] @ skip.T
    return error - bias, bias


def _entries(
    active: Sequence[Active],
    numbers: Sequence[int],
    error: Tensor,
    bias: Tensor,
    held: Tensor | None,
) -> dict[str, Tensor]:
    """The sources that write first at one layer: features, errors, biases.

    An error that is `held` at a token counts as a bias.
    """
    everywhere = torch.arange(len(error), device=error.device)
    none = torch.full_like(everywhere, -1)
    features = [on.feature for on in active]
    of = [torch.full_like(f, i) for f, i in zip(features, numbers, strict=True)]
    errors = torch.full_like(everywhere, ERROR)
    if held is not None:
        errors = torch.where(held, BIAS, errors)
    return {
        "position": torch.cat([*(on.position for on in active), everywhere, everywhere]),
        "kind": torch.cat([*(torch.full_like(f, FEATURE) for f in features), errors, none * -BIAS]),
        "dictionary": torch.cat([*of, none, none * 2]),
        "feature": torch.cat([*features, none, none]),
        "value": torch.cat([*(on.value for on in active), error.norm(dim=-1), bias.norm(dim=-1)]),
    }


def _by_token(position: Tensor) -> Tensor:
    return position.sort(stable=True).indices


def _layer_writes(
    entries: Mapping[str, Tensor],
    numbers: Tensor,
    active: Sequence[Active],
    later: Sequence[int],
    number_of: Mapping[int, Tensor],
) -> dict[str, Any]:
    """The rows of a layer: of its own sources, and of those (`later`) that write lower ones too."""
    others = [active[i] for i in later]
    of = [torch.full_like(number_of[i], i) for i in later]
    position = torch.cat([entries["position"], *(on.position for on in others)])
    order = _by_token(position)
    return {
        "source": torch.cat([numbers, *(number_of[i] for i in later)])[order],
        "position": position[order],
        "start": (0, *torch.bincount(position).cumsum(0).tolist()),
        "dictionary": torch.cat([entries["dictionary"], *of])[order],
        "feature": torch.cat([entries["feature"], *(on.feature for on in others)])[order],
        "value": torch.cat([entries["value"], *(on.value for on in others)])[order],
    }

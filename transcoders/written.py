"""What the sources of a prompt write: rows, kept where there is room, else made for each sweep."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from hooked_qwen.sites import Site
from saes.on_demand import InTurn
from transcoders.sources import LayerWrites, Sources


@dataclass(frozen=True)
class WrittenRows:
    """What every source of a prompt writes, at each layer it writes."""

    sources: Sources
    dictionaries: InTurn
    kept: int
    "bytes that are kept between sweeps, where all rows take no more; else they are made for each"

    def rows(
        self, layer: int, upto: int
    ) -> Iterator[tuple[int, int, Float[Tensor, "written d_model"]]]:
        """What is written at the first tokens of a layer, a row for each source: in parts.

        Each with the token that it begins at, and the one after its last.
        """
        written = self.sources.layers[layer]
        if self._kept is not None:
            yield 0, upto, self._kept[layer][: written.start[upto]]
            return
        for first, last in written.parts(upto):
            yield first, last, self._made(layer, first, last)

    def add_products(
        self, layer: int, g: Float[Tensor, "upto targets d_model"], weight: Tensor
    ) -> None:
        """Put into `weight` what the sources that write at a layer get of its gradient.

        Those that write at no other layer stand there as they are; others are added up.
        """
        written = self.sources.layers[layer]
        for first, last, rows in self.rows(layer, len(g)):
            source, here = written.source[written.span(first, last)], g[first:last]
            if written.own:
                start = int(source[0])
                _products(rows, here, written, first, weight[start : start + len(rows)])
            else:
                found = g.new_empty(len(rows), g.shape[1])
                _products(rows, here, written, first, found)
                weight.index_add_(0, source, found)

    def _made(self, layer: int, first: int, last: int) -> Float[Tensor, "written d_model"]:
        written = self.sources.layers[layer]
        return written.rows(Site("mlp_out", layer), self.dictionaries, first, last)

    @cached_property
    def _kept(self) -> list[Tensor] | None:
        layers = self.sources.layers
        size = sum(len(layer.source) * layer.error[0].nbytes for layer in layers)
        if size > self.kept:
            return None
        return [self._made(number, 0, len(layer.error)) for number, layer in enumerate(layers)]


def _products(
    rows: Float[Tensor, "written d_model"],
    g: Float[Tensor, "tokens targets d_model"],
    written: LayerWrites,
    first: int,
    out: Float[Tensor, "written targets"],
) -> None:
    """Fill `out` with the products of every token's rows and the gradients there.

    The tokens are those from `first` on.
    """
    tokens, n = g.shape[:2]
    if each := written.per_token:
        torch.bmm(rows.view(tokens, each, -1), g.mT, out=out.view(tokens, each, n))
        return
    start = written.start[first]
    for at in range(tokens):
        span = written.span(first + at, first + at + 1)
        part = slice(span.start - start, span.stop - start)
        torch.mm(rows[part], g[at].T, out=out[part])

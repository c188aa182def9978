"""Products with the features that are on: k rows a token, where dense ones take all.

Axes: `pairs` the (token, feature) pairs that are on, `bags` the pairs of one token within one of
the nested prefixes: with one prefix, the pairs of a token.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saes.training.selection import Pairs, prefix_of, starts_of
from saes.training.step import ScratchMemory

SHORT = 2**15
"Features up to which their numbers fit into 16 bits."


@dataclass(frozen=True)
class Bags:
    """The pairs by token, and within a token by the first prefix that holds the feature."""

    features: Int[Tensor, " pairs"]
    values: Float[Tensor, " pairs"]
    ids: Int[Tensor, " pairs"]
    "the bag of each pair: token * prefixes + prefix"
    starts: Int[Tensor, " bags"]
    "the first pair of each bag"
    prefixes: int

    @classmethod
    def of(cls, pairs: Pairs, prefixes: Sequence[int]) -> "Bags":
        """`prefixes` are widths, rising."""
        n = len(prefixes)
        if n == 1:
            starts = pairs.counts.cumsum(0) - pairs.counts
            return cls(pairs.features, pairs.values, pairs.tokens, starts, n)
        ids, order = (pairs.tokens * n + prefix_of(pairs.features, prefixes)).sort(stable=True)
        starts = starts_of(ids, n * len(pairs.counts))[:-1]
        return cls(pairs.features[order], pairs.values[order], ids, starts, n)

    @property
    def tokens(self) -> Int[Tensor, " pairs"]:
        """The token of each pair."""
        return self.ids if self.prefixes == 1 else self.ids // self.prefixes

    def decode(self, rows: Float[Tensor, "features d"]) -> Float[Tensor, "bags d"]:
        """For each bag, the sum over its pairs of the value times the feature's row."""
        return F.embedding_bag(
            self.features, rows, self.starts, per_sample_weights=self.values, mode="sum"
        )

    def row_products(
        self, of_bags: Float[Tensor, "bags d"], rows: Float[Tensor, "features d"]
    ) -> Float[Tensor, " pairs"]:
        """For each pair, the product of its bag's row with its feature's row.

        It is the gradient of `decode` to the values. Written as a gather of both rows it would
        take memory of `[pairs, d]`, k times the batch.
        """
        return torch.ops.aten._embedding_bag_per_sample_weights_backward(
            of_bags, rows, self.features, self.starts, self.ids, 0
        )


@dataclass(frozen=True)
class ByFeature:
    """The pairs grouped by feature: the rows of a sparse matrix of features by tokens or bags.

    The gradients of both weight matrices are products of such matrices, which differ in their
    values and columns only, so the pairs are sorted once.
    """

    order: Int[Tensor, " pairs"]
    ends: Int[Tensor, " ends"]
    "where each feature's pairs begin in that order, and where the last one's end"

    @classmethod
    def of(cls, features: Int[Tensor, " pairs"], width: int) -> "ByFeature":
        order = _stable_order(features, width)
        return cls(order, starts_of(features[order], width))

    def product(
        self,
        values: Float[Tensor, " pairs"],
        row_of: Int[Tensor, " pairs"],
        rows: Float[Tensor, "rows d"],
        use: str,
        memory: ScratchMemory,
    ) -> Float[Tensor, "features d"]:
        """Row i: the sum over pairs of feature i of the value times the pair's row.

        It lies in `memory` until that is taken for the same `use` again.
        """
        width = len(self.ends) - 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            matrix = torch.sparse_csr_tensor(
                self.ends,
                row_of[self.order],
                values[self.order],
                size=(width, len(rows)),
                # Looking at the indices would make the host wait for a device.
                check_invariants=False,
            )
        out = memory.take(use, width, rows.shape[1], rows)
        return torch.addmm(out, matrix, rows, beta=0, out=out)


def sums_by_feature(
    values: Float[Tensor, " pairs"], features: Int[Tensor, " pairs"], width: int
) -> Float[Tensor, " features"]:
    """The sum of each feature's values."""
    return torch.zeros(width, dtype=values.dtype, device=values.device).index_add_(
        0, features, values
    )


def any_by_feature(
    on: Bool[Tensor, " pairs"], features: Int[Tensor, " pairs"], width: int
) -> Bool[Tensor, " features"]:
    """Whether any of a feature's pairs is on."""
    # What is off marks one more row: leaving it out would make the host wait for its number.
    marks = torch.zeros(width + 1, dtype=torch.bool, device=on.device)
    return marks.scatter_(0, features.where(on, width), True)[:width]


def _stable_order(features: Int[Tensor, " pairs"], width: int) -> Int[Tensor, " pairs"]:
    """The pairs by rising feature, those of one feature as they stand."""
    if features.is_cpu and width <= SHORT:
        # NumPy sorts 16 bits digit by digit: ten thousand pairs in a fifteenth of torch's time.
        return torch.from_numpy(np.argsort(features.short().numpy(), kind="stable"))
    # 32-bit keys sort in a third of the time.
    return features.int().sort(stable=True).indices

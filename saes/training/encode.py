"""Which features of a batch are on, and their values: the one dense product of a step.

The values are float32's in any case; what may be rough is the product that chooses features.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from saes.training.selection import (
    Pairs,
    TopKSearch,
    largest,
    largest_positive,
    select_batch_topk,
    select_topk,
)
from saes.training.sparse_products import Bags
from saes.training.step import DictionaryWeights, ScratchMemory

Precision = Literal["float32", "bfloat16"]

ENCODED_AT_ONCE = 2**25
"Pre-activations that are in memory together; with 2**22 or 2**23, wide encoders are slower."
ALIGNED = 32
"Columns of a bfloat16 matrix are a multiple of this."
CANDIDATES = 2
"Features scored in float32 for each that is kept, where bfloat16 chooses the candidates."
UNIT = 2**-9
"Largest relative error of a number that is rounded to bfloat16, which keeps eight binary digits."


@dataclass(frozen=True, kw_only=True)
class TopKSelection:
    """How many features are kept, and for which nested prefixes the loss is counted."""

    k: int
    of_batch: bool
    "the largest of the batch together, not of each token"
    prefixes: tuple[int, ...]
    "widths, rising; the last is the whole"
    guess: Float[Tensor, ""] | None = None
    "about the smallest feature kept in the batch before"
    precision: Precision = "float32"
    "of the encoder's product when it chooses features; their values are float32 in any case"
    search: TopKSearch = largest
    "how the largest of each token are found"

    def select(self, pre: Float[Tensor, "tokens features"]) -> Pairs:
        """The features that are on."""
        if self.of_batch:
            return select_batch_topk(pre, self.k, guess=self.guess)
        return select_topk(pre, self.k, self.search)


def encode(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    choice: TopKSelection,
    memory: ScratchMemory,
) -> Pairs:
    """The chosen features, their values in full precision."""
    if choice.precision == "bfloat16":
        rough = _rough(weights.W_enc, weights.b_enc, x, choice, memory)
        return Pairs(rough.features, _scores(weights, x, rough).relu(), rough.counts)
    if not choice.of_batch and x.dtype == torch.float32 and _multiplies_bfloat16(x.device):
        return screened_topk(weights, x, choice, memory)
    return _choose(weights.W_enc, weights.b_enc, x, choice, memory)


def screened_topk(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    choice: TopKSelection,
    memory: ScratchMemory,
) -> Pairs:
    """The k largest of each token, exactly, by way of a product in bfloat16.

    The rough product plus what rounding can take from it bounds every pre-activation from above:

        x . w <= x~ . w~ + |x - x~| |w| + |x~| |w - w~|        |w - w~| <= 2^-9 |w|

    Twice k features with the largest bounds are scored in float32. Tokens for which the last
    bound reaches the k-th best score are encoded in float32.
    """
    k, width = choice.k, len(weights.W_enc)
    wider = replace(choice, k=min(CANDIDATES * k, width), search=largest_positive)
    rough = _rough(*_bounding(weights, x), wider, memory)
    scores = _scores(weights, x, rough).view(len(x), -1)
    values, kept = scores.topk(k, sorted=False)
    features = rough.features.view(len(x), -1).gather(1, kept)
    last = rough.values.view(len(x), -1).amin(1).float()
    # The product's sum and its bias are rounded to bfloat16 too; four times that is allowed.
    last += (last + weights.b_enc.abs().amax()) * 4 * UNIT
    doubtful = (last >= values.amin(1)).nonzero().flatten()
    if len(doubtful) and wider.k < width:
        again = _choose(weights.W_enc, weights.b_enc, x[doubtful], choice, memory)
        values[doubtful], features[doubtful] = again.values.view(-1, k), again.features.view(-1, k)
    counts = torch.full((len(x),), k, device=x.device)
    return Pairs(features.flatten(), values.relu().flatten(), counts)


def _bounding(
    weights: DictionaryWeights, x: Float[Tensor, "tokens d_source"]
) -> tuple[
    Float[Tensor, "features wider"], Float[Tensor, " features"], Float[Tensor, "tokens wider"]
]:
    """Encoder, bias and activations whose rough product bounds every pre-activation.

    One more column carries each token's slack, which the product multiplies by each row's length:
    the bound costs no pass over the pre-activations.
    """
    rounded = x.to(torch.bfloat16).float()
    # Slack and length are rounded in their turn.
    slack = 1.02 * ((x - rounded).norm(dim=-1) + rounded.norm(dim=-1) * UNIT)
    lengths = weights.W_enc.norm(dim=-1)
    return _with_column(weights.W_enc, lengths), weights.b_enc, _with_column(x, slack)


def _with_column(
    rows: Float[Tensor, "rows d"], column: Float[Tensor, " rows"]
) -> Float[Tensor, "rows wider"]:
    """The rows in bfloat16 with one more column, and zeros up to a width that multiplies fast."""
    d = rows.shape[1]
    wider = rows.new_zeros(len(rows), d + ALIGNED - d % ALIGNED, dtype=torch.bfloat16)
    wider[:, :d], wider[:, d] = rows, column
    return wider


def _rough(
    W_enc: Float[Tensor, "features d_source"],
    b_enc: Float[Tensor, " features"],
    x: Float[Tensor, "tokens d_source"],
    choice: TopKSelection,
    memory: ScratchMemory,
) -> Pairs:
    """The chosen features, their values rounded."""
    half = torch.bfloat16
    return _choose(W_enc.to(half), b_enc.to(half), x.to(half), choice, memory)


def _scores(
    weights: DictionaryWeights, x: Float[Tensor, "tokens d_source"], pairs: Pairs
) -> Float[Tensor, " pairs"]:
    """The pre-activations of some features, in full precision."""
    bags = Bags.of(pairs, (len(weights.W_enc),))
    return bags.row_products(x, weights.W_enc) + weights.b_enc[pairs.features]


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are much faster than in float32: four times or more."""
    return device.type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def _choose(
    W_enc: Float[Tensor, "features d_source"],
    b_enc: Float[Tensor, " features"],
    x: Float[Tensor, "tokens d_source"],
    choice: TopKSelection,
    memory: ScratchMemory,
) -> Pairs:
    """The chosen features by one product, or by several where it would take too much memory."""
    size = max(1, ENCODED_AT_ONCE // len(W_enc))
    # BatchTopK compares all tokens.
    size = len(x) if choice.of_batch else min(size, len(x))
    pre = memory.take("pre-activations", size, len(W_enc), x)
    parts = [
        choice.select(torch.addmm(b_enc, part, W_enc.T, out=pre[: len(part)]))
        for part in x.split(size)
    ]
    return parts[0] if len(parts) == 1 else Pairs.concatenate(parts)

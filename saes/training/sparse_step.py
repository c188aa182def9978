"""Gradients of the TopK losses by hand: one dense product to encode, everything else sparse.

Of `features` pre-activations a token keeps about k, so decoding and all gradients touch k rows a
token. Autograd through the dense formula does six dense products for the same numbers.

    y_p  = sum over i < p of f_i W_dec_i + b_dec (+ x W_skip^T)    for each of the nested prefixes p
    loss = mean over p of |y_p - y|^2 / (tokens * d_target)  +  aux * |e - f_dead W_dec|^2 / |e|^2

where f is TopK or BatchTopK of all pre-activations, e = y - y_m of the whole width m, held
constant, and f_dead are the k_aux largest of the dead features' pre-activations, where positive:
it gives features that no token chooses a gradient. One prefix, the whole width, is the plain loss.

Source: Gao et al. 2024 (TopK, AuxK), arXiv:2406.04093; Bussmann et al. 2024 (BatchTopK),
arXiv:2412.06410; Bussmann et al. 2025 (Matryoshka), arXiv:2503.17547.
Differs: the auxiliary residual is the target's, which for a transcoder is not the input's; the
prefixes' losses are averaged, not added.

Axes: `tokens` activations in a batch, `pairs` the (token, feature) pairs that are on, `bags` the
pairs of one token within one step of the prefixes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from saes.nonlinearities import topk
from saes.training.selection import (
    Pairs,
    Search,
    largest,
    largest_positive,
    prefix_of,
    select_batch_topk,
    select_topk,
    starts_of,
)
from saes.training.step import Memory, StepResult, Weights, precise, sum_of_squares

Precision = Literal["float32", "bfloat16"]

ENCODED_AT_ONCE = 2**25
"Pre-activations that are in memory together; with 2**22 or 2**23, wide encoders are slower."
ALIGNED = 32
"Columns of a bfloat16 matrix are a multiple of this."
SHORT = 2**15
"Features up to which their numbers fit into 16 bits."
CANDIDATES = 2
"Features scored in float32 for each that is kept, where bfloat16 chooses the candidates."


@dataclass(frozen=True, kw_only=True)
class Choice:
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
    search: Search = largest
    "how the largest of each token are found"

    def select(self, pre: Float[Tensor, "tokens features"]) -> Pairs:
        if self.of_batch:
            return select_batch_topk(pre, self.k, guess=self.guess)
        return select_topk(pre, self.k, self.search)


@torch.no_grad()
def sparse_step(
    weights: Weights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    *,
    choice: Choice,
    dead: Int[Tensor, " dead"],
    aux_coefficient: float,
    memory: Memory | None = None,
) -> StepResult:
    """Loss and exact gradients of one batch; `dead` lists the features that AuxK revives.

    The gradients lie in `memory` and last until the next step that has the same.
    """
    memory = memory or Memory()
    pairs = _encode(weights, x, choice, memory)
    bags = _Bags.of(pairs, choice.prefixes)
    values = pairs.values[bags.order] if bags.order is not None else pairs.values
    partial = F.embedding_bag(
        bags.features, weights.W_dec, bags.starts, per_sample_weights=values, mode="sum"
    )
    partial = rearrange(partial, "(tokens p) d -> tokens p d", p=bags.prefixes)
    rest = y - weights.b_dec
    if weights.W_skip is not None:
        rest = rest - x @ weights.W_skip.T
    error = rest.unsqueeze(1) - (partial if bags.prefixes == 1 else partial.cumsum(1))

    d_output = error * (-2 / error.numel())
    if bags.prefixes > 1:
        # A feature adds to every prefix from its own on.
        d_output = d_output.flip(1).cumsum(1).flip(1)
    d_total = d_output[:, 0]
    d_rows = rearrange(d_output, "tokens p d -> (tokens p) d")
    along = _row_products(d_rows, weights.W_dec, bags)
    d_values = along * (values > 0)
    by_feature = _ByFeature.of(bags.features, len(weights.W_enc))
    tokens = bags.ids // bags.prefixes if bags.prefixes > 1 else bags.ids
    gradients = Weights(
        W_enc=by_feature.product(d_values, tokens, x, "W_enc", memory),
        b_enc=_sums(d_values, bags.features, len(weights.W_enc)),
        W_dec=by_feature.product(values, bags.ids, d_rows, "W_dec", memory),
        b_dec=d_total.sum(0),
        W_skip=None if weights.W_skip is None else d_total.T @ x,
    )
    along = _sums(along * values, bags.features, len(weights.W_enc))
    final = error[:, -1]
    squared_error = sum_of_squares(final)
    loss = (squared_error if bags.prefixes == 1 else sum_of_squares(error)) / error.numel()
    if len(dead) and aux_coefficient:
        # Where there is no error, none of it can be explained.
        share = torch.where(squared_error > 0, aux_coefficient / squared_error, 0.0)
        loss = loss + _add_aux(gradients, along, weights, x, final, dead, share)
    on = values > 0
    return StepResult(
        gradients=gradients,
        along=along,
        loss=loss,
        squared_error=squared_error,
        fired=_any(on, bags.features, len(weights.W_enc)),
        l0=precise(on.sum()) / len(x),
        numbers={"smallest": _smallest(values, on)} if choice.of_batch else {},
    )


def _encode(
    weights: Weights, x: Float[Tensor, "tokens d_source"], choice: Choice, memory: Memory
) -> Pairs:
    """The chosen features, their values in full precision."""
    if choice.precision == "bfloat16":
        rough = _rough(weights.W_enc, weights.b_enc, x, choice, memory)
        return Pairs(rough.features, _scores(weights, x, rough).relu(), rough.counts)
    if not choice.of_batch and x.dtype == torch.float32 and _multiplies_bfloat16(x.device):
        return screened_topk(weights, x, choice, memory)
    return _choose(weights.W_enc, weights.b_enc, x, choice, memory)


def screened_topk(
    weights: Weights, x: Float[Tensor, "tokens d_source"], choice: Choice, memory: Memory
) -> Pairs:
    """The k largest of each token, exactly, by way of a product in bfloat16.

    The rough product plus what rounding can take from it bounds every pre-activation from above:

        x . w <= x~ . w~ + |x - x~| |w| + |x~| |w - w~|        |w - w~| <= 2^-9 |w|

    Twice k features with the largest bounds are scored in float32. Tokens for which the last
    bound reaches the k-th best score are encoded in float32.
    """
    k, width = choice.k, len(weights.W_enc)
    rounded = x.to(torch.bfloat16).float()
    slack = 1.02 * ((x - rounded).norm(dim=-1) + rounded.norm(dim=-1) * 2**-9)
    norms = weights.W_enc.norm(dim=-1)
    # One more input carries each token's slack times each row's length.
    raised = _with_column(x, slack), _with_column(weights.W_enc, norms)
    wider = replace(choice, k=min(CANDIDATES * k, width), search=largest_positive)
    rough = _rough(raised[1], weights.b_enc, raised[0], wider, memory)
    scores = _scores(weights, x, rough).view(len(x), -1)
    values, kept = scores.topk(k, sorted=False)
    features = rough.features.view(len(x), -1).gather(1, kept)
    last = rough.values.view(len(x), -1).amin(1).float()
    # The sum and the bias are rounded too.
    last += (last + weights.b_enc.abs().amax()) * 2**-7
    doubtful = (last >= values.amin(1)).nonzero().flatten()
    if len(doubtful) and wider.k < width:
        again = _choose(weights.W_enc, weights.b_enc, x[doubtful], choice, memory)
        values[doubtful], features[doubtful] = again.values.view(-1, k), again.features.view(-1, k)
    counts = torch.full((len(x),), k, device=x.device)
    return Pairs(features.flatten(), values.relu().flatten(), counts)


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
    choice: Choice,
    memory: Memory,
) -> Pairs:
    half = torch.bfloat16
    return _choose(W_enc.to(half), b_enc.to(half), x.to(half), choice, memory)


def _scores(
    weights: Weights, x: Float[Tensor, "tokens d_source"], pairs: Pairs
) -> Float[Tensor, " pairs"]:
    """The pre-activations of some features, in full precision."""
    products = _row_products(x, weights.W_enc, _Bags.of(pairs, (len(weights.W_enc),)))
    return products + weights.b_enc[pairs.features]


def _multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 are much faster than in float32: four times or more."""
    return device.type == "cpu" and (
        torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    )


def _choose(
    W_enc: Float[Tensor, "features d_source"],
    b_enc: Float[Tensor, " features"],
    x: Float[Tensor, "tokens d_source"],
    choice: Choice,
    memory: Memory,
) -> Pairs:
    size = max(1, ENCODED_AT_ONCE // len(W_enc))
    # BatchTopK compares all tokens.
    size = len(x) if choice.of_batch else min(size, len(x))
    pre = memory.take(f"pre-activations in {x.dtype}", size, len(W_enc), x)
    parts = [
        choice.select(torch.addmm(b_enc, part, W_enc.T, out=pre[: len(part)]))
        for part in x.split(size)
    ]
    return parts[0] if len(parts) == 1 else Pairs.concatenate(parts)


@dataclass(frozen=True)
class _Bags:
    """The pairs ordered by token and prefix step, for `embedding_bag`."""

    features: Int[Tensor, " pairs"]
    ids: Int[Tensor, " pairs"]
    "the bag of each pair: token * prefixes + step"
    starts: Int[Tensor, " bags"]
    prefixes: int
    order: Int[Tensor, " pairs"] | None
    "where each pair stood before; None where nothing moved"

    @classmethod
    def of(cls, pairs: Pairs, prefixes: Sequence[int]) -> "_Bags":
        n = len(prefixes)
        ids, order, features = pairs.tokens, None, pairs.features
        counts = pairs.counts
        if n > 1:
            ids, order = (ids * n + prefix_of(features, prefixes)).sort(stable=True)
            features = features[order]
            counts = starts_of(ids, n * len(pairs.counts)).diff()
        return cls(features, ids, counts.cumsum(0) - counts, n, order)


def _add_aux(
    gradients: Weights,
    along: Float[Tensor, " features"],
    weights: Weights,
    x: Float[Tensor, "tokens d_source"],
    error: Float[Tensor, "tokens d_target"],
    dead: Int[Tensor, " dead"],
    coefficient: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Add the gradients of AuxK; products over the dead features only are small enough dense."""
    k_aux = min(max(1, error.shape[-1] // 2), len(dead))
    f = topk(torch.addmm(weights.b_enc[dead], x, weights.W_enc[dead].T), k_aux)
    W_dead = weights.W_dec[dead]
    miss = f @ W_dead - error
    d_output = miss * (2 * coefficient)
    d_pre = (d_output @ W_dead.T) * (f > 0)
    d_dead = f.T @ d_output
    gradients.W_dec.index_add_(0, dead, d_dead)
    gradients.W_enc.index_add_(0, dead, d_pre.T @ x)
    gradients.b_enc.index_add_(0, dead, d_pre.sum(0))
    along.index_add_(0, dead, (d_dead * W_dead).sum(-1))
    return coefficient * sum_of_squares(miss)


def _row_products(
    bag_rows: Float[Tensor, "bags d"], rows: Float[Tensor, "features d"], bags: _Bags
) -> Float[Tensor, " pairs"]:
    """For each pair, the product of its bag's row with its feature's row.

    This is the gradient of an embedding bag to its weights, which never forms the
    `[pairs, d]` gather.
    """
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        bag_rows, rows, bags.features, bags.starts, bags.ids, 0
    )


@dataclass(frozen=True)
class _ByFeature:
    """The pairs grouped by feature."""

    order: Int[Tensor, " pairs"]
    ends: Int[Tensor, " ends"]

    @classmethod
    def of(cls, features: Int[Tensor, " pairs"], width: int) -> "_ByFeature":
        order = _stable_order(features, width)
        return cls(order, starts_of(features[order], width))

    def product(
        self,
        values: Float[Tensor, " pairs"],
        row_of: Int[Tensor, " pairs"],
        rows: Float[Tensor, "rows d"],
        use: str,
        memory: Memory,
    ) -> Float[Tensor, "features d"]:
        """Row i: the sum over pairs of feature i of the value times the pair's row."""
        width = len(self.ends) - 1
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
            matrix = torch.sparse_csr_tensor(
                self.ends,
                row_of[self.order],
                values[self.order],
                size=(width, len(rows)),
                check_invariants=False,
            )
        out = memory.take(use, width, rows.shape[1], rows)
        return torch.addmm(out, matrix, rows, beta=0, out=out)


def _stable_order(features: Int[Tensor, " pairs"], width: int) -> Int[Tensor, " pairs"]:
    """The pairs by rising feature, those of one feature as they stand."""
    if features.is_cpu and width <= SHORT:
        # NumPy sorts 16 bits digit by digit: of ten thousand pairs in a fifteenth of torch's time.
        return torch.from_numpy(np.argsort(features.short().numpy(), kind="stable"))
    # 32-bit keys sort in a third of the time.
    return features.int().sort(stable=True).indices


def _sums(
    values: Float[Tensor, " pairs"], features: Int[Tensor, " pairs"], width: int
) -> Float[Tensor, " features"]:
    """The sum of each feature's values."""
    return torch.zeros(width, dtype=values.dtype, device=values.device).index_add_(
        0, features, values
    )


def _any(
    on: Bool[Tensor, " pairs"], features: Int[Tensor, " pairs"], width: int
) -> Bool[Tensor, " features"]:
    """Whether any of a feature's pairs is on."""
    # What is off marks one more row: leaving it out would make the host wait for its number.
    marks = torch.zeros(width + 1, dtype=torch.bool, device=on.device)
    return marks.scatter_(0, features.where(on, width), True)[:width]


def _smallest(values: Float[Tensor, " pairs"], on: Bool[Tensor, " pairs"]) -> Float[Tensor, ""]:
    """The smallest value that is on, infinite where none is."""
    return precise(F.pad(values.where(on, torch.inf), (0, 1), value=torch.inf).amin())

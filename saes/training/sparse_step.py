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
pairs of one token within one of the nested prefixes (`saes.training.sparse_products`).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from saes.nonlinearities import topk
from saes.training.encode import TopKSelection, encode
from saes.training.sparse_products import Bags, ByFeature, any_by_feature, sums_by_feature
from saes.training.step import (
    Dead,
    DictionaryWeights,
    ScratchMemory,
    StepResult,
    precise,
    sum_of_squares,
)


@torch.no_grad()
def sparse_step(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    *,
    choice: TopKSelection,
    dead: Dead,
    aux_coefficient: float,
    memory: ScratchMemory | None = None,
) -> StepResult:
    """Loss and exact gradients of one batch.

    The gradients lie in `memory` and last until the next step that has the same.
    """
    memory = memory or ScratchMemory()
    bags = Bags.of(encode(weights, x, choice, memory), choice.prefixes)
    error = _errors(weights, bags, x, y)
    gradients, along = _gradients(weights, bags, x, error, memory)
    final = error[:, -1]
    squared_error = sum_of_squares(final)
    loss = (squared_error if bags.prefixes == 1 else sum_of_squares(error)) / error.numel()
    if len(dead) and aux_coefficient:
        # Where there is no error, none of it can be explained.
        share = torch.where(squared_error > 0, aux_coefficient / squared_error, 0.0)
        loss = loss + _add_aux(gradients, along, weights, x, final, dead, share)
    on = bags.values > 0
    return StepResult(
        gradients=gradients,
        along=along,
        loss=loss,
        squared_error=squared_error,
        fired=any_by_feature(on, bags.features, len(weights.W_enc)),
        l0=precise(on.sum()) / len(x),
        numbers={"smallest": _smallest(bags.values, on)} if choice.of_batch else {},
    )


def _errors(
    weights: DictionaryWeights,
    bags: Bags,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
) -> Float[Tensor, "tokens prefixes d_target"]:
    """What each prefix leaves of the target."""
    rest = y - weights.b_dec
    if weights.W_skip is not None:
        rest = rest - x @ weights.W_skip.T
    partial = rearrange(bags.decode(weights.W_dec), "(tokens p) d -> tokens p d", p=bags.prefixes)
    # A bag holds what its prefix adds to the shorter ones.
    return rest.unsqueeze(1) - (partial if bags.prefixes == 1 else partial.cumsum(1))


def _gradients(
    weights: DictionaryWeights,
    bags: Bags,
    x: Float[Tensor, "tokens d_source"],
    error: Float[Tensor, "tokens prefixes d_target"],
    memory: ScratchMemory,
) -> tuple[DictionaryWeights, Float[Tensor, " features"]]:
    """Gradients of the mean squared error, and each decoder row's product with its own.

    With g_p = -2 error_p / (tokens * prefixes * d_target), the gradient at the output of prefix p,
    and G = the sum of the g_p of all prefixes that hold a feature i:

        dL/df_i = G . W_dec_i        dL/dW_dec_i = sum over tokens of f_i G
        dL/dpre_i = dL/df_i where f_i > 0, so dL/dW_enc_i = sum over tokens of dL/dpre_i x
    """
    width = len(weights.W_enc)
    d_output = error * (-2 / error.numel())
    if bags.prefixes > 1:
        # A feature adds to every prefix from its own on.
        d_output = d_output.flip(1).cumsum(1).flip(1)
    # All prefixes hold the biases and the skip connection.
    d_total = d_output[:, 0]
    d_bags = rearrange(d_output, "tokens p d -> (tokens p) d")
    d_values = bags.row_products(d_bags, weights.W_dec)
    d_pre = d_values * (bags.values > 0)
    by_feature = ByFeature.of(bags.features, width)
    gradients = DictionaryWeights(
        W_enc=by_feature.product(d_pre, bags.tokens, x, "W_enc", memory),
        b_enc=sums_by_feature(d_pre, bags.features, width),
        W_dec=by_feature.product(bags.values, bags.ids, d_bags, "W_dec", memory),
        b_dec=d_total.sum(0),
        W_skip=None if weights.W_skip is None else d_total.T @ x,
    )
    # W_dec_i . dL/dW_dec_i = sum of f_i dL/df_i: the products are there already.
    return gradients, sums_by_feature(d_pre * bags.values, bags.features, width)


def _add_aux(
    gradients: DictionaryWeights,
    along: Float[Tensor, " features"],
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    error: Float[Tensor, "tokens d_target"],
    dead: Dead,
    coefficient: Float[Tensor, ""],
) -> Float[Tensor, ""]:
    """Add the gradients of AuxK; products over the dead features only are small enough dense."""
    k_aux, rows = min(max(1, error.shape[-1] // 2), len(dead)), dead.features
    pre = torch.addmm(weights.b_enc[rows], x, weights.W_enc[rows].T)
    if dead.counted is not None:
        # Off in the features that only fill the list up, so that no gradient reaches them.
        pre = pre.where(dead.counted, -torch.inf)
    f, W_dead = topk(pre, k_aux), weights.W_dec[rows]
    miss = f @ W_dead - error
    d_output = miss * (2 * coefficient)
    d_pre = (d_output @ W_dead.T) * (f > 0)
    d_dead = f.T @ d_output
    gradients.W_dec.index_add_(0, rows, d_dead)
    gradients.W_enc.index_add_(0, rows, d_pre.T @ x)
    gradients.b_enc.index_add_(0, rows, d_pre.sum(0))
    along.index_add_(0, rows, (d_dead * W_dead).sum(-1))
    return coefficient * sum_of_squares(miss)


def _smallest(values: Float[Tensor, " pairs"], on: Bool[Tensor, " pairs"]) -> Float[Tensor, ""]:
    """The smallest value that is on, infinite where none is."""
    return precise(F.pad(values.where(on, torch.inf), (0, 1), value=torch.inf).amin())

"""Steps of architectures that learn their sparsity, by autograd of the plain formula.

    loss = |y - y_hat|^2 / (tokens * d_target) + cost     y_hat = f W_dec + b_dec (+ x W_skip^T)

The features f and the cost of their number are the architecture's (`saes.architectures`).
Decoder rows have unit norm in training, so a decoder-norm weight is written, and is one.

Differs from the sources: the coefficient multiplies sums over features divided by d_target as the
reconstruction is, so that one coefficient suits all widths of the model.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from saes.training.step import DictionaryWeights, Numbers, StepResult, precise

CONTROL_RATE = 0.02
"Largest relative change of the L1 coefficient in a step, where L0 is to reach a k."
Encoding = Callable[
    [DictionaryWeights, Float[Tensor, "tokens features"], Float[Tensor, "tokens d_target"]],
    tuple[Float[Tensor, "tokens features"], Float[Tensor, ""]],
]
"Features and their cost, from the encoder's output and what the features are to add up to."


def dense_step(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    encoding: Encoding,
) -> StepResult:
    """Loss and gradients of one batch."""
    leaves = {n: w.detach().requires_grad_() for n, w in weights.named().items()}
    with torch.enable_grad():
        w = DictionaryWeights.of(leaves)
        pre = x @ w.W_enc.T + w.b_enc
        skip = 0.0 if w.W_skip is None else x @ w.W_skip.T
        rest = y - w.b_dec - skip
        f, cost = encoding(w, pre, rest)
        error = rest - f @ w.W_dec
        loss = error.square().mean() + cost
        gradients = torch.autograd.grad(loss, list(leaves.values()))
    by_name = dict(zip(leaves, gradients, strict=True))
    on = f.detach() > 0
    return StepResult(
        gradients=DictionaryWeights.of(by_name),
        along=(by_name["W_dec"] * weights.W_dec).sum(-1),
        loss=precise(loss.detach()),
        squared_error=precise(error.detach().square().sum()),
        fired=on.any(0),
        l0=precise(on.sum()) / len(x),
    )


def towards_k(numbers: Numbers, l0: Float[Tensor, ""], k: int | None) -> Numbers:
    """The numbers with an L1 coefficient that brings L0 nearer to `k`, where there is one."""
    if k is None:
        return numbers
    excess = (l0.clamp(min=1e-3) / k).log().clamp(-1, 1)
    return numbers | {"coefficient": numbers["coefficient"] * (CONTROL_RATE * excess).exp()}

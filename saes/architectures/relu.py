"""ReLU: positive pre-activations are on, and an L1 penalty keeps them few.

    f = relu(pre)        cost = c / d_target * sum_i f_i |W_dec_i| / tokens

Where a k is given, c is moved after each step until L0 is k on average.

Source: Bricken et al. 2023; Conerly et al. 2024 (L1 weighted by decoder norms).
"""

from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from saes.architectures.architecture import Architecture, Begun, StepOptions, TrainingStart
from saes.training.dense_step import dense_step, towards_k
from saes.training.step import DictionaryWeights, StepResult, number_like


def begin(start: TrainingStart) -> Begun:
    """The coefficient starts from what the user gave."""
    return Begun(numbers={"coefficient": number_like(start.sparsity, start.x)})


def step(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    options: StepOptions,
) -> StepResult:
    """The dense step; the coefficient moves towards k."""
    scale = (options.numbers["coefficient"] / y.shape[1]).to(x.dtype)

    def encoding(w: DictionaryWeights, pre: Tensor, rest: Tensor) -> tuple[Tensor, Tensor]:
        f = pre.relu()
        return f, scale * (f * w.W_dec.norm(dim=-1)).sum(-1).mean()

    result = dense_step(weights, x, y, encoding)
    return replace(result, numbers=towards_k(options.numbers, result.l0, options.k))


ARCHITECTURE = Architecture(step=step, begin=begin)

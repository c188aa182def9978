"""BatchTopK: the k * tokens largest pre-activations of a batch are on, k a token on average.

A dictionary in use meets any number of tokens, so the finished one has a threshold instead
(`saes.training.calibration`).

Source: Bussmann et al. 2024, arXiv:2412.06410.
"""

from jaxtyping import Float
from torch import Tensor

from saes.architectures.architecture import Architecture, Begun, StepOptions, TrainingStart
from saes.architectures.topk import step_by
from saes.training.encode import TopKSelection
from saes.training.step import DictionaryWeights, StepResult, number_like

LOWERED = 0.9
"The guess at the smallest feature kept, over that of the batch before: a little too many are found"


def begin(start: TrainingStart) -> Begun:
    """Nothing is known of the smallest feature that will be kept."""
    return Begun(numbers={"smallest": number_like(0.0, start.x)})


def step(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    options: StepOptions,
) -> StepResult:
    """The sparse step, the batch keeping its k * tokens largest."""
    assert options.k is not None
    choice = TopKSelection(
        k=options.k,
        of_batch=True,
        prefixes=options.prefixes,
        guess=LOWERED * options.numbers["smallest"],
        precision=options.config.precision,
    )
    return step_by(choice, weights, x, y, options)


ARCHITECTURE = Architecture(
    step=step, begin=begin, threshold="calibrated", needs_k=True, revives=True
)

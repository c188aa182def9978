"""TopK: the k largest pre-activations of each token are on.

Source: Gao et al. 2024, arXiv:2406.04093.
"""

from jaxtyping import Float
from torch import Tensor

from saes.architectures.architecture import Architecture, StepOptions
from saes.training.encode import TopKSelection
from saes.training.sparse_step import sparse_step
from saes.training.step import DictionaryWeights, StepResult


def step(
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    options: StepOptions,
) -> StepResult:
    """The sparse step, each token keeping its k largest."""
    assert options.k is not None
    choice = TopKSelection(
        k=options.k,
        of_batch=False,
        prefixes=options.prefixes,
        precision=options.config.precision,
    )
    return step_by(choice, weights, x, y, options)


def step_by(
    choice: TopKSelection,
    weights: DictionaryWeights,
    x: Float[Tensor, "tokens d_source"],
    y: Float[Tensor, "tokens d_target"],
    options: StepOptions,
) -> StepResult:
    """The sparse step of any way to choose features, AuxK included."""
    return sparse_step(
        weights,
        x,
        y,
        choice=choice,
        dead=options.dead,
        aux_coefficient=options.config.aux_coefficient,
        memory=options.memory,
    )


ARCHITECTURE = Architecture(step=step, needs_k=True, revives=True, nested=lambda width: ())

"""What a dictionary starts from: the scale of its sites, random weights, nested widths."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saes.architectures.table import architecture
from saes.dictionary import DictionarySpec
from saes.training.config import TrainConfig
from saes.training.step import DictionaryWeights


@dataclass(frozen=True)
class Normalisation:
    """Centre and scale that make a site's activations zero-mean with mean squared norm d."""

    mean: Float[Tensor, " d"]
    scale: float

    @classmethod
    def of(cls, x: Float[Tensor, "tokens d"]) -> "Normalisation":
        mean = x.mean(0)
        return cls(mean, float((x.shape[-1] / (x - mean).square().sum(-1).mean()).sqrt()))

    def apply(self, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
        return torch.add(-self.scale * self.mean, x, alpha=self.scale)


def nested_widths(spec: DictionarySpec, config: TrainConfig) -> tuple[int, ...]:
    """The widths of the dictionaries that must reconstruct alone, the whole last."""
    nested = architecture(spec.architecture).nested
    shorter = config.prefixes or (() if nested is None else nested(config.width))
    return (*(p for p in shorter if p < config.width), config.width)


def initial_weights(
    spec: DictionarySpec, width: int, x: Float[Tensor, "tokens d_source"], d_target: int, seed: int
) -> DictionaryWeights:
    """Random unit rows; an SAE's encoder starts as its decoder's transpose."""
    generator = torch.Generator().manual_seed(seed)

    def unit_rows(d: int) -> Tensor:
        rows = torch.randn(width, d, generator=generator).to(x)
        return rows / rows.norm(dim=-1, keepdim=True)

    W_dec = unit_rows(d_target)
    return DictionaryWeights(
        W_enc=W_dec.clone() if spec.source == spec.target else unit_rows(x.shape[1]),
        b_enc=torch.zeros(width).to(x),
        W_dec=W_dec,
        b_dec=torch.zeros(d_target).to(x),
        W_skip=torch.zeros(d_target, x.shape[1]).to(x) if spec.skip else None,
    )

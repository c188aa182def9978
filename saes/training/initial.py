"""What a dictionary starts from: the scale of its sites, random weights, nested widths."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from saes.dictionary import DictionarySpec
from saes.training.config import TrainConfig
from saes.training.sparse_step import Weights

PREFIX_SHARES = (16, 8, 4, 2)
"A matryoshka's nested dictionaries are the width divided by these."


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
    shorter = config.prefixes
    if spec.architecture == "matryoshka" and not shorter:
        shorter = tuple(sorted({config.width // n for n in PREFIX_SHARES} - {0}))
    return (*(p for p in shorter if p < config.width), config.width)


def initial_weights(
    spec: DictionarySpec, width: int, x: Float[Tensor, "tokens d_source"], d_target: int, seed: int
) -> tuple[Weights, float]:
    """Random unit rows, and how far the pre-activations of `x` spread.

    An SAE's encoder starts as its decoder's transpose. JumpReLU's thresholds start where the
    average token has its k features.
    """
    generator = torch.Generator().manual_seed(seed)

    def unit_rows(d: int) -> Tensor:
        rows = torch.randn(width, d, generator=generator).to(x)
        return rows / rows.norm(dim=-1, keepdim=True)

    W_dec = unit_rows(d_target)
    W_enc = W_dec.clone() if spec.source == spec.target else unit_rows(x.shape[1])
    zeros = torch.zeros(width).to(x)
    weights = Weights(
        W_enc=W_enc,
        b_enc=zeros,
        W_dec=W_dec,
        b_dec=torch.zeros(d_target).to(x),
        W_skip=torch.zeros(d_target, x.shape[1]).to(x) if spec.skip else None,
        r_mag=zeros.clone() if spec.architecture == "gated" else None,
        b_mag=zeros.clone() if spec.architecture == "gated" else None,
    )
    if spec.architecture != "jumprelu":
        return weights, 0.0
    pre = x[:1024] @ W_enc.T
    share = (spec.k or 32) / width
    start = float(pre.float().flatten().sort().values[int((1 - share) * (pre.numel() - 1))])
    log_threshold = torch.full_like(zeros, max(start, 1e-3)).log()
    return Weights(**weights.named(), log_threshold=log_threshold), float(pre.std())

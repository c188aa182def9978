"""Linear probes of texts' means: which are trained, and at which layer.

    logit = x . direction + bias        positive for class 1

fitted on standardised means by `saes.evaluation.probing.logistic`. The layer is chosen by a rule
that looks at the training texts only: the one whose probe, fitted on two thirds of them, has the
smallest log loss on the last third.

Axes: `texts` texts, `d` the width of what is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.metrics.readout import MEAN, Readout
from hooked_qwen.sites import Site
from saes.evaluation.probing import logistic


@dataclass(frozen=True, eq=False)
class Probe:
    """A direction and a bias."""

    direction: Float[Tensor, " d"]
    bias: float

    def logits(self, x: Float[Tensor, "texts d"]) -> Float[Tensor, " texts"]:
        """Positive where it says class 1."""
        return x @ self.direction + self.bias

    def says(self, x: Float[Tensor, "texts d"]) -> Bool[Tensor, " texts"]:
        """Whether it says class 1."""
        return self.logits(x) > 0

    def readout(self, site: Site) -> Readout:
        """Its logit as a metric of prompts."""
        return Readout(site=site, direction=self.direction.float(), bias=self.bias, position=MEAN)


def fitted_probe(x: Float[Tensor, "texts d"], positive: Bool[Tensor, " texts"]) -> Probe:
    """The probe that tells `positive` texts from the others; what is constant counts nothing."""
    mean, spread = x.mean(0), x.std(0, correction=0)
    scale = torch.where(spread > 0, 1 / spread.clamp_min(1e-30), 0.0)
    w, b = logistic((x - mean) * scale, positive)
    direction = w * scale
    return Probe(direction, float(b - mean @ direction))


def held_out_loss(
    x: Float[Tensor, "texts d"], positive: Bool[Tensor, " texts"], *, seed: int
) -> float:
    """Mean log loss, in nats, on a third of the texts of a probe fitted on the others."""
    test = _third(positive, seed)
    logits = fitted_probe(x[~test], positive[~test]).logits(x[test])
    return float(F.binary_cross_entropy_with_logits(logits, positive[test].double()))


def _third(positive: Bool[Tensor, " texts"], seed: int) -> Bool[Tensor, " texts"]:
    """A third of the texts of each class."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros_like(positive)
    for members in (positive.nonzero().flatten(), (~positive).nonzero().flatten()):
        order: Int[Tensor, " members"] = torch.randperm(len(members), generator=generator)
        chosen[members[order[: max(1, len(members) // 3)]]] = True
    return chosen


def losses(
    x: Mapping[Site, Float[Tensor, "texts d"]], positive: Bool[Tensor, " texts"], *, seed: int
) -> dict[Site, float]:
    """The held-out loss at each site."""
    return {site: held_out_loss(means, positive, seed=seed) for site, means in x.items()}

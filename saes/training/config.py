"""How dictionaries are trained."""

from dataclasses import asdict, dataclass
from typing import Any

from saes.training.encode import Precision


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How dictionaries are trained; every field changes the result.

    Raises `ValueError` when a number is out of its range.
    """

    width: int = 1024
    "features in each dictionary"
    tokens: int = 500_000
    "activations that each dictionary sees"
    learning_rate: float | None = None
    "Adam's, at its highest; by default 2e-4 * sqrt(16384 / width), the scaling of Gao et al. 2024"
    warmup: float = 0.05
    "share of the steps over which the learning rate rises from 0"
    decay: float = 0.3
    "share of the steps, the last ones, over which it falls to 0"
    sparsity: float = 1.0
    "coefficient of the penalty of relu, gated and jumprelu; where a k is given, relu and gated "
    "only start from it, and it is moved until the average is k"
    prefixes: tuple[int, ...] = ()
    "widths of nested dictionaries that must reconstruct alone, rising; the whole is always one. "
    "For topk and matryoshka; by default a matryoshka has 1/16, 1/8, 1/4 and 1/2 of the width"
    aux_coefficient: float = 1 / 32
    "weight of the loss that revives dead features (topk, batch-topk, matryoshka); Gao et al. 2024"
    dead_after: int = 20_000
    "activations without firing after which a feature counts as dead"
    gradient_norm: float = 1.0
    "longer gradients are cut to this norm"
    average: float = 0.0
    "decay of a running average of the weights, which is what is saved; 0 saves the last weights"
    precision: Precision = "float32"
    "bfloat16: the product that chooses features is rough, their values and all else float32; for "
    "topk, batch-topk and matryoshka"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "tokens", "sparsity", "dead_after", "gradient_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a positive number")
        if self.learning_rate is not None and self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: expected a positive number")
        if not 0 <= self.warmup + self.decay <= 1:
            raise ValueError(
                f"warm-up and decay take {self.warmup + self.decay} of the steps: at most 1"
            )
        if not 0 <= self.average < 1:
            raise ValueError(f"average is {self.average}: expected a decay from 0 to below 1")
        if list(self.prefixes) != sorted({p for p in self.prefixes if 0 < p <= self.width}):
            raise ValueError(
                f"prefixes are {self.prefixes}: expected rising widths from 1 to {self.width}"
            )

    @property
    def peak_rate(self) -> float:
        return self.learning_rate or 2e-4 * (16384 / self.width) ** 0.5


def record_of(config: TrainConfig) -> dict[str, Any]:
    """The configuration as JSON, with what its defaults stand for."""
    return asdict(config) | {"learning_rate": config.peak_rate, "prefixes": list(config.prefixes)}

"""The only training loop: SAEs and transcoders of every site, from one stream of activations.

Training happens in normalised units, `(x - mean) * scale` with mean squared norm d, and the
normalisation is folded into the weights at the end, so a trained dictionary takes and gives raw
activations and its decoder rows have unit norm.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooked_qwen.stream import ActivationBatch
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.step import StepResult, Weights, topk_step

BATCHES_FOR_MEAN = 8


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How dictionaries are trained; every field changes the result.

    Raises `ValueError` when a number is out of its range.
    """

    width: int = 1024
    "features in each dictionary"
    tokens: int = 500_000
    "activations that each dictionary sees"
    learning_rate: float = 1e-3
    "Adam's, at its highest"
    warmup: float = 0.05
    "share of the steps over which the learning rate rises from 0"
    decay: float = 0.3
    "share of the steps, the last ones, over which it falls to 0"
    aux_coefficient: float = 1 / 32
    "weight of the loss that revives dead features; Gao et al. 2024"
    dead_after: int = 20_000
    "activations without firing after which a feature counts as dead"
    gradient_norm: float = 1.0
    "longer gradients are cut to this norm"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("width", "tokens", "learning_rate", "dead_after", "gradient_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a positive number")
        if not 0 <= self.warmup + self.decay <= 1:
            raise ValueError(
                f"warm-up and decay take {self.warmup + self.decay} of the steps: at most 1"
            )


@dataclass(frozen=True)
class Progress:
    """What the loop reports after each step, averaged over the dictionaries."""

    step: int
    steps: int
    tokens: int
    fvu: float
    dead: float


@dataclass(frozen=True)
class Trained:
    """A finished dictionary and the record of its training."""

    dictionary: SparseDictionary
    record: dict[str, Any]


def fit(
    batches: Iterable[ActivationBatch],
    specs: Sequence[DictionarySpec],
    *,
    config: TrainConfig,
    report: Callable[[Progress], None] | None = None,
) -> list[Trained]:
    """Train one TopK dictionary for each of `specs` on the same stream of activations.

    The first batches set the normalisation and are trained on like the others.

    Raises `ValueError` when the stream ends before `config.tokens`, and `FloatingPointError`
    naming step and dictionary when a loss is not finite.
    """
    stream = iter(batches)
    first = list(islice(stream, BATCHES_FOR_MEAN))
    if not first:
        raise ValueError("no activations to train on: the text is shorter than one batch")
    for spec in specs:
        _check_trainable(spec, config)
    size = len(next(iter(first[0].values.values())))
    steps = max(1, config.tokens // size)
    trainees = [_Trainee(spec, first, config, seed) for seed, spec in enumerate(specs)]
    for step in range(steps):
        batch = _next(stream, first, step, steps, size)
        rate = _learning_rate(step, steps, config)
        for trainee in trainees:
            trainee.learn(batch, rate, step)
        if report is not None:
            report(_progress(trainees, step + 1, steps, size))
    return [trainee.finish(steps * size) for trainee in trainees]


def _check_trainable(spec: DictionarySpec, config: TrainConfig) -> None:
    if spec.architecture != "topk" or spec.k is None:
        raise ValueError(f"{spec.name} is {spec.architecture}: only topk dictionaries are trained")
    if spec.k > config.width:
        raise ValueError(f"{spec.name}: k is {spec.k}, expected 1 to {config.width}, the width")


def _next(
    stream: Iterator[ActivationBatch],
    first: list[ActivationBatch],
    step: int,
    steps: int,
    size: int,
) -> ActivationBatch:
    batch = next(chain(first[step : step + 1], stream), None)
    if batch is None:
        raise ValueError(
            f"the text gave {step * size} activations, but {steps * size} were asked for: "
            "give more text or ask for fewer tokens"
        )
    return batch


def _learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """Linear warm-up, constant, linear decay to zero."""
    rising = (step + 1) / max(1.0, config.warmup * steps)
    falling = (steps - step) / max(1.0, config.decay * steps)
    return config.learning_rate * min(1.0, rising, falling)


def _progress(trainees: "list[_Trainee]", step: int, steps: int, size: int) -> Progress:
    n = len(trainees)
    return Progress(
        step,
        steps,
        step * size,
        sum(t.fvu for t in trainees) / n,
        sum(float(t.is_dead().float().mean()) for t in trainees) / n,
    )


@dataclass(frozen=True)
class _Normalisation:
    """Centre and scale that make a site's activations zero-mean with mean squared norm d."""

    mean: Float[Tensor, " d"]
    scale: float

    @classmethod
    def of(cls, x: Float[Tensor, "tokens d"]) -> "_Normalisation":
        mean = x.mean(0)
        return cls(mean, float((x.shape[-1] / (x - mean).square().sum(-1).mean()).sqrt()))

    def apply(self, x: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
        return (x - self.mean) * self.scale


class _Trainee:
    """One dictionary while it trains: weights, optimiser, and when each feature last fired."""

    def __init__(
        self,
        spec: DictionarySpec,
        first: Sequence[ActivationBatch],
        config: TrainConfig,
        seed: int,
    ) -> None:
        pairs = [batch.pair(spec.source, spec.target) for batch in first]
        self.spec, self.config, self.seed = spec, config, config.seed + seed
        self.source = _Normalisation.of(torch.cat([x for x, _ in pairs]))
        self.target = _Normalisation.of(torch.cat([y for _, y in pairs]))
        self.weights = _initial_weights(
            spec, config.width, len(self.source.mean), len(self.target.mean), self.seed
        )
        self.parameters = [torch.nn.Parameter(w) for w in self.weights.tensors()]
        self.optimiser = torch.optim.Adam(self.parameters, fused=True, eps=1e-9)
        self.silent = torch.zeros(config.width, dtype=torch.long)
        self.fvu = 1.0
        self.outliers = 0

    def is_dead(self) -> Tensor:
        return self.silent > self.config.dead_after

    @torch.no_grad()
    def learn(self, batch: ActivationBatch, rate: float, step: int) -> None:
        x, y = batch.pair(self.spec.source, self.spec.target)
        self.outliers += len(batch.values[self.spec.source]) - len(x)
        if not len(x):
            return
        x, y = self.source.apply(x), self.target.apply(y)
        assert self.spec.k is not None
        result = topk_step(
            self.weights,
            x,
            y,
            k=self.spec.k,
            dead=self.is_dead().nonzero().flatten(),
            aux_coefficient=self.config.aux_coefficient,
        )
        self._note(result, y, step)
        self._update(result.gradients, rate)

    def _note(self, result: StepResult, y: Float[Tensor, "tokens d"], step: int) -> None:
        fvu = result.squared_error / float(y.square().sum())
        if not fvu < float("inf"):
            raise FloatingPointError(
                f"the loss of {self.spec.name} is {fvu} at step {step}: "
                "lower the learning rate; nothing was written"
            )
        self.fvu = 0.95 * self.fvu + 0.05 * fvu if step else fvu
        self.silent += len(y)
        self.silent[result.active[result.values > 0]] = 0

    def _update(self, gradients: Weights, rate: float) -> None:
        W_dec = self.weights.W_dec
        # The part of the gradient along a unit row only changes its length.
        along = (gradients.W_dec * W_dec).sum(-1, keepdim=True)
        gradients.W_dec.addcmul_(along, W_dec, value=-1)
        for parameter, gradient in zip(self.parameters, gradients.tensors(), strict=True):
            parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.gradient_norm)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        W_dec.div_(W_dec.norm(dim=-1, keepdim=True))

    def finish(self, tokens: int) -> Trained:
        dictionary = SparseDictionary(self.spec, self._folded())
        record = asdict(self.config) | {
            "tokens": tokens,
            "seed": self.seed,
            "norm_outliers_left_out": self.outliers,
            "dead_at_end": int(self.is_dead().sum()),
            "loss": "mean squared error of the normalised target",
        }
        return Trained(dictionary, record)

    def _folded(self) -> dict[str, Tensor]:
        """Weights on raw activations, decoder rows of unit norm.

        Features are measured in the target's raw units: dividing all pre-activations by the
        target's scale changes neither which are largest nor which are positive.
        """
        W_enc, b_enc, W_dec, b_dec = self.weights.tensors()
        encoder = W_enc * (self.source.scale / self.target.scale)
        return {
            "W_enc": encoder,
            "b_enc": b_enc / self.target.scale - encoder @ self.source.mean,
            "W_dec": W_dec.clone(),
            "b_dec": b_dec / self.target.scale + self.target.mean,
        }


def _initial_weights(
    spec: DictionarySpec, width: int, d_source: int, d_target: int, seed: int
) -> Weights:
    """Random unit rows; an SAE's encoder starts as its decoder's transpose."""
    generator = torch.Generator().manual_seed(seed)

    def unit_rows(d: int) -> Tensor:
        rows = torch.randn(width, d, generator=generator)
        return rows / rows.norm(dim=-1, keepdim=True)

    W_dec = unit_rows(d_target)
    W_enc = W_dec.clone() if spec.source == spec.target else unit_rows(d_source)
    return Weights(W_enc, torch.zeros(width), W_dec, torch.zeros(d_target))

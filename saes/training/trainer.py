"""One dictionary while it trains: weights, optimiser, and when each feature last fired."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hooked_qwen.stream import ActivationBatch
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.training.config import TrainConfig, record_of
from saes.training.dense_step import Penalty, penalised_step
from saes.training.initial import Normalisation, initial_weights, nested_widths
from saes.training.sparse_step import (
    Choice,
    Memory,
    StepResult,
    Weights,
    sparse_step,
    sum_of_squares,
)

SPARSE = ("topk", "batch-topk", "matryoshka")
"Architectures that keep a chosen number of features, and train by the sparse step."
THRESHOLDED = ("batch-topk", "matryoshka")
"Of these, those that get a threshold after training (`saes.training.calibration`)."
BANDWIDTH = 0.5
"Width of JumpReLU's kernel, as a share of the standard deviation of the first pre-activations."
THRESHOLD_RATE = 10.0
"Learning rate of JumpReLU's log-thresholds over that of the weights: they have far to go."
TARGET_COEFFICIENT = 3.0
"Weight of JumpReLU's quadratic penalty, at which L0 ends within a few percent of its target."
CONTROL_RATE = 0.02
"Largest relative change of the L1 coefficient in a step, where L0 is to reach a k."
FVU_MEMORY = 0.95
"Decay of the running mean of the FVU that is shown."


class Trainee:
    """One dictionary while it trains; `learn` takes one batch, `finish` folds the weights."""

    def __init__(
        self,
        spec: DictionarySpec,
        config: TrainConfig,
        source: Normalisation,
        target: Normalisation,
        weights: Weights,
        *,
        rate: float,
        seed: int,
        bandwidth: float,
        memory: Memory | None = None,
    ) -> None:
        self.memory = memory or Memory()
        self.spec, self.config, self.seed = spec, config, seed
        self.source, self.target, self.weights = source, target, weights
        self.bandwidth = bandwidth
        self.parameters = {n: torch.nn.Parameter(w) for n, w in weights.named().items()}
        slow = [p for n, p in self.parameters.items() if n != "log_threshold"]
        groups = [{"params": slow, "lr": rate, "relative": 1.0}]
        if weights.log_threshold is not None:
            fast = [self.parameters["log_threshold"]]
            groups.append({"params": fast, "lr": rate, "relative": THRESHOLD_RATE})
        self.optimiser = torch.optim.Adam(groups, fused=True, eps=1e-9)
        self.averages = {n: w.clone() for n, w in weights.named().items()} if config.average else {}
        self.silent = torch.zeros(config.width, dtype=torch.long, device=weights.W_dec.device)
        self.fvu, self.l0, self.loss = 1.0, 0.0, 0.0
        self.updates = 0
        self.smallest = 0.0
        self.threshold = 0.0
        self.coefficient = config.sparsity
        self.outliers = 0
        self.prefixes = nested_widths(spec, config)

    @classmethod
    def begin(
        cls,
        spec: DictionarySpec,
        first: Sequence[ActivationBatch],
        config: TrainConfig,
        rate: float,
        seed: int,
        memory: Memory | None = None,
    ) -> "Trainee":
        """A dictionary before its first step; `first` sets the normalisation.

        Dictionaries that learn in turn may share `memory`.
        """
        pairs = [batch.pair(spec.source, spec.target) for batch in first]
        x, y = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
        source, target = Normalisation.of(x), Normalisation.of(y)
        weights, spread = initial_weights(spec, config.width, source.apply(x), y.shape[1], seed)
        return cls(
            spec,
            config,
            source,
            target,
            weights,
            rate=rate,
            seed=seed,
            bandwidth=BANDWIDTH * spread,
            memory=memory,
        )

    def is_dead(self) -> Bool[Tensor, " features"]:
        return self.silent > self.config.dead_after

    def figures(self) -> dict[str, float]:
        """What the log shows of the last step."""
        return {
            "loss": self.loss,
            "fvu": self.fvu,
            "l0": self.l0,
            "dead": float(self.is_dead().float().mean()),
        }

    @torch.no_grad()
    def learn(self, batch: ActivationBatch, rate: float, step: int) -> None:
        """Take one step at learning rate `rate`; raises `FloatingPointError` on a loss of NaN."""
        x, y = batch.pair(self.spec.source, self.spec.target)
        self.outliers += len(batch.values[self.spec.source]) - len(x)
        if not len(x):
            return
        same = self.spec.source == self.spec.target
        x = self.source.apply(x)
        y = x if same else self.target.apply(y)
        result = self._step(x, y)
        self._note(result, y, step, batch)
        self._update(result, rate)

    def _step(self, x: Float[Tensor, "tokens s"], y: Float[Tensor, "tokens t"]) -> StepResult:
        if self.spec.architecture in SPARSE:
            assert self.spec.k is not None
            choice = Choice(
                k=self.spec.k,
                of_batch=self.spec.architecture in THRESHOLDED,
                prefixes=self.prefixes,
                guess=0.9 * self.smallest,
                precision=self.config.precision,
            )
            return sparse_step(
                self.weights,
                x,
                y,
                choice=choice,
                dead=self.is_dead().nonzero().flatten(),
                aux_coefficient=self.config.aux_coefficient,
                memory=self.memory,
            )
        quadratic = self.spec.architecture == "jumprelu" and self.spec.k is not None
        penalty = Penalty(
            architecture=self.spec.architecture,
            coefficient=TARGET_COEFFICIENT if quadratic else self.coefficient,
            target=self.spec.k if quadratic else None,
            bandwidth=self.bandwidth,
        )
        return penalised_step(self.weights, x, y, penalty=penalty)

    def _note(
        self, result: StepResult, y: Float[Tensor, "tokens d"], step: int, batch: ActivationBatch
    ) -> None:
        fvu = result.squared_error / sum_of_squares(y)
        if not fvu < float("inf"):
            for site in (self.spec.source, self.spec.target):
                if not torch.isfinite(batch.values[site]).all():
                    raise FloatingPointError(
                        f"the model's activations at {site} hold numbers that are not finite, at "
                        f"step {step}: its weights are damaged, or its precision is too short; "
                        "the last checkpoint is kept"
                    )
            raise FloatingPointError(
                f"the loss of {self.spec.name} is {fvu} at step {step}: "
                "lower the learning rate; the last checkpoint is kept"
            )
        self.updates += 1
        self.fvu += share_of_last(FVU_MEMORY, self.updates) * (fvu - self.fvu)
        self.l0, self.loss = result.l0, result.loss
        self.silent += len(y)
        self.silent[result.fired] = 0
        self.smallest = result.smallest
        if self.spec.architecture in ("relu", "gated") and self.spec.k is not None:
            excess = math.log(max(result.l0, 1e-3) / self.spec.k)
            self.coefficient *= math.exp(CONTROL_RATE * max(-1.0, min(1.0, excess)))

    def _update(self, result: StepResult, rate: float) -> None:
        gradients, W_dec = result.gradients, self.weights.W_dec
        # The part of the gradient along a unit row only changes its length.
        gradients.W_dec.addcmul_(result.along.unsqueeze(-1), W_dec, value=-1)
        found = gradients.named()
        norm = math.sqrt(sum(sum_of_squares(g) for g in found.values()))
        for name, parameter in self.parameters.items():
            parameter.grad = found[name]
            if norm > self.config.gradient_norm:
                parameter.grad.mul_(self.config.gradient_norm / norm)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["relative"]
        self.optimiser.step()
        self.optimiser.zero_grad()
        W_dec.div_(W_dec.norm(dim=-1, keepdim=True))
        share = share_of_last(self.config.average, self.updates)
        for name, average in self.averages.items():
            average.lerp_(self.parameters[name].detach(), share)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        tensors = dict(self.weights.named())
        tensors |= {f"average {n}": value for n, value in self.averages.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"{key} {name}"] = value
        tensors |= {"silent": self.silent}
        for side, norm in (("source", self.source), ("target", self.target)):
            tensors |= {f"mean {side}": norm.mean, f"scale {side}": _number(norm.scale)}
        for name in _NUMBERS:
            tensors[name] = _number(getattr(self, name))
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`, of a trainee of the same spec and configuration."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(state[name])
            prefix = f" {name}"
            self.optimiser.state[parameter] = {
                key.removesuffix(prefix): value.to(parameter.device).clone()
                for key, value in state.items()
                if key in (f"step{prefix}", f"exp_avg{prefix}", f"exp_avg_sq{prefix}")
            }
        for name, average in self.averages.items():
            average.copy_(state[f"average {name}"])
        self.silent.copy_(state["silent"])
        device = self.silent.device
        self.source, self.target = (
            Normalisation(state[f"mean {side}"].to(device).clone(), float(state[f"scale {side}"]))
            for side in ("source", "target")
        )
        # Adam counts the same updates.
        self.updates = int(state[f"step {next(iter(self.parameters))}"])
        for name in _NUMBERS:
            if name in state:
                setattr(self, name, type(getattr(self, name))(state[name].item()))

    def record(self) -> dict[str, Any]:
        """How it was trained, for the card."""
        return record_of(self.config) | {
            "seed": self.seed,
            "prefixes": list(self.prefixes[:-1]),
            "norm_outliers_left_out": self.outliers,
            "dead_at_end": int(self.is_dead().sum()),
            "loss": "mean squared error of the normalised target",
            "sparsity": None if self.spec.architecture in SPARSE else self.coefficient,
        }

    def pre_activations(self, batch: ActivationBatch) -> Float[Tensor, "tokens features"]:
        """Of the weights that are saved, in training's units; they last until the next call."""
        x, _ = batch.pair(self.spec.source, self.spec.target)
        learnt = self._learnt()
        out = self.memory.take(f"pre-activations in {x.dtype}", len(x), len(learnt.W_enc), x)
        return torch.addmm(learnt.b_enc, self.source.apply(x), learnt.W_enc.T, out=out)

    def _learnt(self) -> Weights:
        return Weights(**(self.averages or self.weights.named()))

    def finish(self) -> SparseDictionary:
        """The dictionary on raw activations, decoder rows of unit norm.

        Features are measured in the target's raw units: dividing all pre-activations by the
        target's scale changes neither which are largest nor which are positive.
        """
        learnt = self._learnt()
        norms = learnt.W_dec.norm(dim=-1)
        unit = norms / self.target.scale
        gain = learnt.r_mag.exp() if learnt.r_mag is not None else torch.ones_like(norms)
        bias = learnt.b_mag if learnt.b_mag is not None else learnt.b_enc
        encoder = learnt.W_enc * (gain * unit * self.source.scale).unsqueeze(-1)
        weights = {
            "W_enc": encoder,
            "b_enc": bias * unit - encoder @ self.source.mean,
            "W_dec": learnt.W_dec / norms.unsqueeze(-1),
            "b_dec": learnt.b_dec / self.target.scale + self.target.mean,
        }
        if learnt.W_skip is not None:
            weights["W_skip"] = learnt.W_skip * (self.source.scale / self.target.scale)
            weights["b_dec"] = weights["b_dec"] - weights["W_skip"] @ self.source.mean
        if learnt.log_threshold is not None:
            weights["threshold"] = learnt.log_threshold.exp() * unit
        elif learnt.b_mag is not None:
            # The gate x W + b_gate > 0, said of the magnitude's pre-activation.
            weights["threshold"] = (learnt.b_mag - gain * learnt.b_enc) * unit
        elif self.spec.architecture in THRESHOLDED:
            weights["threshold"] = self.threshold * unit
        return SparseDictionary(self.spec, {n: w.clone() for n, w in weights.items()})


_NUMBERS = ("fvu", "l0", "loss", "smallest", "coefficient", "outliers", "bandwidth")


def share_of_last(decay: float, count: int) -> float:
    """What the last of `count` values counts in their running mean.

    The mean of the values so far alone: one that starts from anything else leans towards it for
    the first 1 / (1 - decay) steps.
    """
    return (1 - decay) / (1 - decay**count)


def _number(value: int | float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)

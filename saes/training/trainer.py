"""One dictionary while it trains: weights, optimiser, and one step after the other."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from hooked_qwen.stream import ActivationBatch
from saes.architectures.architecture import Begun, StepOptions, TrainingStart
from saes.architectures.table import architecture
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.training.config import TrainConfig, record_of
from saes.training.initial import Normalisation, initial_weights, nested_widths
from saes.training.recorded_step import Recordings, StepInputs, WorkRecorder
from saes.training.step import (
    Dead,
    DictionaryWeights,
    Numbers,
    ScratchMemory,
    StepResult,
    sum_of_squares,
)
from saes.training.watched import FVU_MEMORY, Watched


class DictionaryTrainer:
    """One dictionary while it trains; `train_step` takes one batch, `finish` folds the weights."""

    def __init__(
        self,
        spec: DictionarySpec,
        config: TrainConfig,
        source: Normalisation,
        target: Normalisation,
        weights: DictionaryWeights,
        *,
        seed: int,
        numbers: Numbers | None = None,
        memory: ScratchMemory | None = None,
        record: WorkRecorder | None = None,
    ) -> None:
        """`weights` with the architecture's own, and the `numbers` that it goes by.

        Dictionaries that train in turn may share `memory`; `record` records steps, where given.
        """
        self.architecture = architecture(spec.architecture)
        self.memory = memory or ScratchMemory()
        self.spec, self.config, self.seed = spec, config, seed
        self.source, self.target, self.weights = source, target, weights
        self.numbers: Numbers = dict(numbers or {})
        self.parameters = {n: torch.nn.Parameter(w) for n, w in weights.named().items()}
        self.optimiser = _adam(self.parameters, self.architecture.rates)
        self.averages = {n: w.clone() for n, w in weights.named().items()} if config.average else {}
        self.watched = Watched(config.width, config.dead_after, weights.W_dec)
        self.updates, self.outliers = 0, 0
        self.threshold = 0.0
        self.prefixes = nested_widths(spec, config)
        self._recordings = (
            None if record is None else Recordings(record, self.memory, weights.W_dec)
        )

    @classmethod
    def begin(
        cls,
        spec: DictionarySpec,
        first: Sequence[ActivationBatch],
        config: TrainConfig,
        seed: int,
        memory: ScratchMemory | None = None,
        record: WorkRecorder | None = None,
    ) -> "DictionaryTrainer":
        """A dictionary before its first step; `first` sets the normalisation."""
        pairs = [batch.pair(spec.source, spec.target) for batch in first]
        x, y = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
        source, target = Normalisation.of(x), Normalisation.of(y)
        x = source.apply(x)
        weights = initial_weights(spec, config.width, x, y.shape[1], seed)
        begun: Begun = architecture(spec.architecture).begin(
            TrainingStart(weights=weights, x=x, k=spec.k, sparsity=config.sparsity)
        )
        weights = DictionaryWeights.of(weights.named() | dict(begun.parameters))
        return cls(
            spec,
            config,
            source,
            target,
            weights,
            seed=seed,
            numbers=begun.numbers,
            memory=memory,
            record=record,
        )

    @torch.no_grad()
    def train_step(self, batch: ActivationBatch, rate: float, step: int) -> None:
        """Take one step at learning rate `rate`; `check_finite` tells whether it went well."""
        raw_x, raw_y = batch.pair(self.spec.source, self.spec.target)
        self.outliers += len(batch.values[self.spec.source]) - len(raw_x)
        if not len(raw_x):
            return
        updates = self.updates + 1
        given = StepInputs(
            x=raw_x,
            y=raw_y,
            rate=rate,
            step=step,
            fvu_share=share_of_last(FVU_MEMORY, updates),
            average_share=share_of_last(self.config.average, updates),
        )
        if self._recordings is None:
            self._step(given, None)
        else:
            most = len(batch.values[self.spec.source])
            listed = self.watched.list_length() if self._may_revive() else 0
            self._recordings.run(self._step, given, most, listed)
        self.updates = updates
        self.watched.tokens += len(raw_y)

    def _step(self, given: StepInputs, listed: int | None) -> None:
        """All that a device does in a step, in the tensors that are there.

        Of a recording only this is repeated, so nothing here counts on the host. `listed` is the
        length of the list of dead features; None: as many as there are.
        """
        x = self.source.apply(given.x)
        y = x if given.y is given.x else self.target.apply(given.y)
        options = StepOptions(
            k=self.spec.k,
            prefixes=self.prefixes,
            config=self.config,
            numbers=self.numbers,
            dead=self._dead(listed),
            memory=self.memory,
        )
        result = self.architecture.step(self.weights, x, y, options)
        fvu = result.squared_error / sum_of_squares(y)
        for name, value in result.numbers.items():
            self.numbers[name].copy_(value)
        self.watched.note(result, fvu, given)
        self._update(result, given)

    def _may_revive(self) -> bool:
        """Whether AuxK is on, and any feature can be dead by now."""
        wanted = self.architecture.revives and self.config.aux_coefficient
        return bool(wanted) and self.watched.any_can_be_dead()

    def _dead(self, listed: int | None) -> Dead:
        """The dead features, for AuxK: none where it is off or it is too early for any."""
        if not self._may_revive() or listed == 0:
            return self.watched.nothing_dead()
        return self.watched.dead(listed)

    def _update(self, result: StepResult, given: StepInputs) -> None:
        gradients, W_dec = result.gradients, self.weights.W_dec
        # The part of the gradient along a unit row only changes its length.
        gradients.W_dec.addcmul_(result.along.unsqueeze(-1), W_dec, value=-1)
        found = gradients.named()
        shorten(found.values(), self.config.gradient_norm)
        for name, parameter in self.parameters.items():
            parameter.grad = found[name]
        for group in self.optimiser.param_groups:
            group["lr"] = given.rate * group["relative"]
            group["capturable"] = isinstance(given.rate, Tensor)
        self.optimiser.step()
        self.optimiser.zero_grad()
        W_dec.div_(W_dec.norm(dim=-1, keepdim=True))
        for name, average in self.averages.items():
            average.lerp_(self.parameters[name].detach(), given.average_share)

    def check_finite(self) -> None:
        """Raise `FloatingPointError` naming the step at which a loss was not finite."""
        self.watched.check_finite(self.spec)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next step depends on."""
        tensors = dict(self.weights.named())
        tensors |= {f"average {n}": value for n, value in self.averages.items()}
        for name, parameter in self.parameters.items():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"{key} {name}"] = value
        for side, norm in (("source", self.source), ("target", self.target)):
            scale = torch.tensor(norm.scale, dtype=torch.float64)
            tensors |= {f"mean {side}": norm.mean, f"scale {side}": scale}
        tensors |= {"outliers": torch.tensor(self.outliers)} | self.watched.state() | self.numbers
        return {name: value.detach().cpu().clone() for name, value in tensors.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`, of a trainer of the same spec and configuration."""
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
        self.watched.restore(state)
        device = self.weights.W_dec.device
        self.source, self.target = (
            Normalisation(state[f"mean {side}"].to(device).clone(), float(state[f"scale {side}"]))
            for side in ("source", "target")
        )
        # Adam counts the same updates.
        self.updates = int(state[f"step {next(iter(self.parameters))}"])
        self.outliers = int(state["outliers"])
        self.numbers |= {n: state[n].to(value) for n, value in self.numbers.items() if n in state}
        if self._recordings is not None:
            self._recordings.forget()

    def record(self) -> dict[str, Any]:
        """How it was trained, for the card."""
        coefficient = self.numbers.get("coefficient")
        return record_of(self.config) | {
            "seed": self.seed,
            "prefixes": list(self.prefixes[:-1]),
            "norm_outliers_left_out": self.outliers,
            "dead_at_end": int(self.watched.is_dead().sum()),
            "loss": "mean squared error of the normalised target",
            "sparsity": None if coefficient is None else float(coefficient),
        }

    def pre_activations(self, batch: ActivationBatch) -> Float[Tensor, "tokens features"]:
        """Of the weights that are saved, in training's units; they last until the next call."""
        x, _ = batch.pair(self.spec.source, self.spec.target)
        learnt = self._learnt()
        out = self.memory.take("pre-activations", len(x), len(learnt.W_enc), x)
        return torch.addmm(learnt.b_enc, self.source.apply(x), learnt.W_enc.T, out=out)

    def _learnt(self) -> DictionaryWeights:
        return DictionaryWeights.of(self.averages or self.weights.named())

    def finish(self) -> SparseDictionary:
        """The dictionary on raw activations, decoder rows of unit norm.

        Features are measured in the target's raw units: dividing all pre-activations by the
        target's scale changes neither which are largest nor which are positive.
        """
        learnt = self._learnt()
        folded = self.architecture.fold(learnt)
        norms = learnt.W_dec.norm(dim=-1)
        unit = norms / self.target.scale
        encoder = learnt.W_enc * (folded.gain * unit * self.source.scale).unsqueeze(-1)
        weights = {
            "W_enc": encoder,
            "b_enc": folded.bias * unit - encoder @ self.source.mean,
            "W_dec": learnt.W_dec / norms.unsqueeze(-1),
            "b_dec": learnt.b_dec / self.target.scale + self.target.mean,
        }
        if learnt.W_skip is not None:
            weights["W_skip"] = learnt.W_skip * (self.source.scale / self.target.scale)
            weights["b_dec"] = weights["b_dec"] - weights["W_skip"] @ self.source.mean
        if self.architecture.threshold == "calibrated":
            weights["threshold"] = self.threshold * unit
        elif folded.threshold is not None:
            weights["threshold"] = folded.threshold * unit
        return SparseDictionary(self.spec, {n: w.clone() for n, w in weights.items()})


def _adam(
    parameters: Mapping[str, torch.nn.Parameter], rates: Mapping[str, float]
) -> torch.optim.Adam:
    """Adam, with the learning rates of some parameters relative to that of the others."""
    groups = {rate: [] for rate in (1.0, *rates.values())}
    for name, parameter in parameters.items():
        groups[rates.get(name, 1.0)].append(parameter)
    of_groups = [{"params": found, "relative": rate} for rate, found in groups.items()]
    return torch.optim.Adam(of_groups, fused=True, eps=1e-9)


def shorten(gradients: Iterable[Tensor], longest: float) -> None:
    """Scale all `gradients` so that together they are at most `longest`."""
    gradients = list(gradients)
    first, *others = map(sum_of_squares, gradients)
    factor = (longest / sum(others, first).sqrt()).clamp(max=1.0)
    # On the CPU asking is free, and mostly saves a pass over the gradients.
    if factor.is_cpu and factor == 1:
        return
    for gradient in gradients:
        gradient.mul_(factor)


def share_of_last(decay: float, count: int) -> float:
    """What the last of `count` values counts in their running mean.

    The mean of the values so far alone: one that starts from anything else leans towards it for
    the first 1 / (1 - decay) steps.
    """
    return (1 - decay) / (1 - decay**count)

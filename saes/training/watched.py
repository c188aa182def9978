"""What is watched while a dictionary trains: dead features, what the log shows, bad numbers.

All of it stays on the device until it is read; only the number of dead features is waited for,
where AuxK needs them.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from saes.dictionary import DictionarySpec
from saes.training.recorded_step import StepInputs, list_length
from saes.training.step import Dead, Numbers, StepResult, number_like, precise

FVU_MEMORY = 0.95
"Decay of the running mean of the FVU that is shown."
SHOWN = ("loss", "fvu", "l0", "dead")
"What the log shows of a dictionary."


class Watched:
    """Of one dictionary, by tensors that each step writes into: a recorded step does so too."""

    def __init__(self, width: int, dead_after: int, like: Tensor) -> None:
        """`like` is a weight; a feature is dead after `dead_after` tokens at which it was off."""
        self.dead_after, self.tokens = dead_after, 0
        self.tokens_since_fired = torch.zeros(width, dtype=torch.long, device=like.device)
        self._shown = torch.stack([number_like(0.0, like)] * len(SHOWN))
        self._not_finite = torch.full((3,), -1, dtype=torch.long, device=like.device)
        "The first step with a loss, source or target that is not finite; -1: none"

    @property
    def shown(self) -> Numbers:
        """What the log shows of the last step."""
        return dict(zip(SHOWN, self._shown.clone(), strict=True))

    def is_dead(self) -> Bool[Tensor, " features"]:
        return self.tokens_since_fired > self.dead_after

    def any_can_be_dead(self) -> bool:
        """Whether there have been tokens enough."""
        return self.tokens > self.dead_after

    def list_length(self) -> int:
        """How long the list of dead features is in a recording; the host waits for the device."""
        return list_length(int(self.is_dead().sum()), len(self.tokens_since_fired))

    def dead(self, listed: int | None) -> Dead:
        """A list of `listed` features, the dead ones first; None: the dead ones alone.

        For the latter the host waits for the device, to know how many there are.
        """
        dead = self.is_dead()
        if listed is None:
            return Dead(features=dead.nonzero().flatten())
        features = dead.byte().sort(descending=True, stable=True).indices[:listed]
        return Dead(features=features, counted=dead[features])

    def nothing_dead(self) -> Dead:
        """The empty list."""
        return Dead(features=self.tokens_since_fired.new_empty(0))

    def note(self, result: StepResult, fvu: Float[Tensor, ""], given: StepInputs) -> None:
        """Take in what a step gave."""
        self.tokens_since_fired += len(given.y)
        self.tokens_since_fired.masked_fill_(result.fired, 0)
        mean = self._shown[SHOWN.index("fvu")]
        mean = mean + given.fvu_share * (fvu - mean)
        dead = precise(self.is_dead().float().mean())
        self._shown.copy_(torch.stack([result.loss, mean, result.l0, dead]))
        # A sum is finite where all it adds up is, and takes a tenth of the time of asking for each.
        source, target = (z.sum().to(fvu.dtype) for z in (given.x, given.y))
        bad = ~torch.isfinite(torch.stack([fvu, source, target]))
        first = bad & (self._not_finite < 0)
        self._not_finite.copy_(torch.where(first, given.step, self._not_finite))

    def check_finite(self, spec: DictionarySpec) -> None:
        """Raise `FloatingPointError` naming the step at which a loss was not finite."""
        loss, source, target = self._not_finite.tolist()
        if loss < 0:
            return
        for site, first in ((spec.source, source), (spec.target, target)):
            if first == loss:
                raise FloatingPointError(
                    f"the model's activations at {site} hold numbers that are not finite, at "
                    f"step {loss}: its weights are damaged, or its precision is too short; "
                    "the last checkpoint is kept"
                )
        raise FloatingPointError(
            f"the loss of {spec.name} is not finite at step {loss}: "
            "lower the learning rate; the last checkpoint is kept"
        )

    def state(self) -> dict[str, Tensor]:
        """All of it that a checkpoint keeps."""
        return {"silent": self.tokens_since_fired} | self.shown

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state`."""
        self.tokens_since_fired.copy_(state["silent"])
        self.tokens = int(state["silent"].max())
        # Checkpoints of earlier versions hold all numbers that these do but the dead share.
        shown = self.shown
        shown |= {n: state[n].to(value) for n, value in shown.items() if n in state}
        self._shown.copy_(torch.stack(list(shown.values())))

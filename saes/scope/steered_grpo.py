"""GRPO in which one rollout of each group is steered toward what is not wanted.

    while rollout 0 of a group is written:   h <- h + strength * largest_s * W_dec[s]
    reward of a rollout                      - behaviour(what was written)

at the last token of each pass, the one whose successor is drawn, and for several features the sum
of theirs. A model that seldom does what is not wanted seldom learns from it: where all rollouts of
a group get the same reward, GRPO's advantages are zero. The steered one has it on show.

The steered rollout is off-policy. It is scored with the log-probabilities of the model as it is,
unsteered, and so is the ratio that trl clips: pi / pi_old, never pi / pi_steered. Its true
importance weight would be near zero, and with it nothing would be learned; taken as 1, its
gradient is that of making an unlikely text less likely yet, and no estimate of a gradient of the
expected reward. It also lowers the mean of its group, which lifts all the others. The clip holds
within one batch of rollouts only, and only where it is used more than once (`num_iterations`).

Source: Qwen-Scope, arXiv:2605.11887 (one steered rollout); GRPO, arXiv:2402.03300; trl's
`GRPOTrainer`. Differs: in nothing but the generation of rollout 0; with strength 0 it is trl's.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from datasets import Dataset
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PrinterCallback
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from hooked_qwen.config_checks import check_at_least
from hooked_qwen.hooks import Activation, HookFunction
from hooked_qwen.placement import device_of
from hooked_qwen.plain_model import shifted
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from saes.scope.behaviour import Behaviour, pieces_of
from saes.scope.fine_tune import FineTuneConfig, TrainingCurve, arguments


@dataclass(frozen=True, kw_only=True)
class Steering:
    """What is added to the tensor at a site while a steered rollout is written."""

    site: Site
    vector: Float[Tensor, " d_site"]


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How rollouts are made, and how many.

    Raises `ValueError` for what is out of range.
    """

    group: int = 8
    "rollouts of a prompt"
    prompts: int = 1
    "prompts in a step"
    tokens: int = 40
    "of a rollout at most"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_at_least(2, self, "group")
        check_at_least(1, self, "prompts", "tokens")
        if not self.temperature > 0:
            raise ValueError(f"the temperature is {self.temperature}: expected more than 0")


def steered_rows(n: int, group: int, *, first: int = 0) -> list[int]:
    """Which of `n` rollouts are steered: the first of each group, the groups one after another.

    `first` is the number of the first of these among all, where other processes have some.
    """
    return [i for i in range(n) if (first + i) % group == 0]


def on_rows(rows: Sequence[int], vector: Float[Tensor, " d_site"]) -> HookFunction:
    """Adds a vector to the last token of some rows of a pass."""

    def change(x: Activation) -> Activation:
        moved = x.clone()
        moved[list(rows), -1] += vector.to(x)
        return moved

    return change


class SteeredGRPOTrainer(GRPOTrainer):
    """trl's trainer, rollout 0 of each group written under `steering`."""

    def __init__(self, steering: Steering | None, **settings: Any) -> None:
        super().__init__(**settings)
        self.steering = steering
        self.steered = 0
        "rollouts that were"
        self._tokenizer.padding_side = "left"

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        model = cast(nn.Module, self.model)
        if self.steering is None or not model.training:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        first = self.accelerator.process_index * len(prompt_ids)
        rows = steered_rows(len(prompt_ids), cast(int, self.num_generations), first=first)
        self.steered += len(rows)
        with shifted(model, self.steering.site, on_rows(rows, self.steering.vector)):
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)


def reinforce(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[str],
    behaviour: Behaviour,
    steering: Steering | None,
    config: FineTuneConfig,
    rollouts: RolloutConfig,
    *,
    report: Report = silent,
) -> TrainingCurve:
    """Train `model` in place against a behaviour; its curve.

    At each step the curve has the mean behaviour of the first rollouts of the groups, the steered
    ones where some are, and of the others. Without `steering` this is trl's GRPO. Raises
    `ValueError` as `fine_tune`, and `RuntimeError` where trl never asked for a rollout here.
    """
    curve: TrainingCurve = []

    def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
        shown = [behaviour(pieces_of(tokenizer, ids)) for ids in completion_ids]
        curve.append(_of_groups(shown, rollouts.group) | {"step": len(curve) + 1})
        report("training", len(curve), config.steps)
        return [-value for value in shown]

    with tempfile.TemporaryDirectory() as folder:
        trainer = SteeredGRPOTrainer(
            steering,
            model=cast(Any, model),
            reward_funcs=cast(Any, reward),
            args=_arguments(model, folder, config, rollouts),
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in prompts]),
            processing_class=tokenizer,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    if steering is not None and not trainer.steered:
        raise RuntimeError("no rollout was steered: this release of trl makes them elsewhere")
    model.eval()
    return curve


def _arguments(
    model: nn.Module, folder: str, config: FineTuneConfig, rollouts: RolloutConfig
) -> GRPOConfig:
    return arguments(
        GRPOConfig,
        folder,
        device_of(model),
        config,
        per_device_train_batch_size=rollouts.group,
        gradient_accumulation_steps=rollouts.prompts,
        num_generations=rollouts.group,
        max_completion_length=rollouts.tokens,
        temperature=rollouts.temperature,
        # trl's defaults are for large models on a GPU; `trainer` turns them on again.
        bf16=False,
        gradient_checkpointing=False,
    )


def _of_groups(shown: Sequence[float], group: int) -> dict[str, int | float]:
    first = shown[::group]
    others = [value for i, value in enumerate(shown) if i % group]
    return {"first": sum(first) / len(first), "others": sum(others) / len(others)}

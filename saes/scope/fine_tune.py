"""Supervised fine-tuning that keeps chosen features down (SASFT), with transformers' Trainer.

    loss = CE + lambda * mean over the tokens trained on of  sum_s relu(pre_s(x) - alpha_s)

pre_s are the pre-activations of chosen features in the model that is being trained, alpha_s where
each is left alone: its mean on the texts to train on, by the model as it was. Both means are over
the same tokens: those that the cross-entropy of a step is over, accumulated passes and other
processes included, so gradient accumulation changes nothing.

Source: SASFT, arXiv:2507.14894. Differs: norm outliers do not count (`chosen_features`); a sum
over features, where the published code has their mean at each layer; alpha is the mean of the very
texts that are trained on, which have to be of the wanted kind.

Units: lambda is nats per unit of pre-activation.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainingArguments

from hooked_qwen.config_checks import check_at_least
from hooked_qwen.placement import device_of
from hooked_qwen.plain_model import captured
from hooked_qwen.progress import Report, silent
from saes.scope.chosen_features import ChosenFeatures

UNTRAINED = -100
"Label of a token that is not trained on, as everywhere in transformers."
TrainingCurve = list[dict[str, int | float]]
"What was seen at some steps of a training."
LOGGED = 50
"Points of a training's curve at most."


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """How a model is trained further.

    Raises `ValueError` for what is out of range.
    """

    steps: int = 100
    batch: int = 8
    "texts in one pass; more in a step by gradient_accumulation_steps of `trainer`"
    learning_rate: float = 1e-4
    seed: int = 0
    "of the order of texts, and of dropout"
    trainer: Mapping[str, Any] = field(default_factory=dict)
    "further arguments of transformers' TrainingArguments, such as bf16"

    def __post_init__(self) -> None:
        check_at_least(1, self, "steps", "batch")
        if not self.learning_rate > 0:
            raise ValueError(f"the learning rate is {self.learning_rate}: expected more than 0")


@dataclass(frozen=True)
class FeaturePenalty:
    """Chosen features, and from which pre-activation on they cost something."""

    chosen: ChosenFeatures
    alpha: Float[Tensor, " chosen"]
    weight: float
    "lambda; at 0 the penalty is told in the log and changes nothing"

    def __post_init__(self) -> None:
        if not (self.weight >= 0 and math.isfinite(self.weight)):
            raise ValueError(f"lambda is {self.weight}: expected a number from 0 on")


def excess(
    pre: Float[Tensor, "batch pos chosen"],
    alpha: Float[Tensor, " chosen"],
    counted: Bool[Tensor, "batch pos"],
) -> Float[Tensor, ""]:
    """How far pre-activations are above alpha, summed over features and the tokens that count.

    sum_x sum_s relu(pre_s(x) - alpha_s)
    """
    return ((pre - alpha.to(pre)).relu() * counted.unsqueeze(-1)).sum()


def fine_tune(
    model: nn.Module,
    rows: Sequence[Sequence[int]],
    penalty: FeaturePenalty,
    config: FineTuneConfig,
    *,
    pad: int,
    report: Report = silent,
) -> TrainingCurve:
    """Train `model`, plain or with peft's adapters, in place on texts of tokens; its curve.

    The curve has, at some steps, the cross-entropy and the penalty without lambda, each the mean
    since the last. Raises `ValueError` for unknown arguments of the Trainer, for a model on another
    device than the Trainer's, and for several devices in one process.
    """
    with tempfile.TemporaryDirectory() as folder:
        trainer = _Trainer(
            penalty,
            report,
            model=model,
            args=arguments(TrainingArguments, folder, device_of(model), config),
            train_dataset=cast(Any, [{"input_ids": list(row)} for row in rows]),
            data_collator=collator(pad),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    model.eval()
    return trainer.curve


def check_trainer(kind: type[TrainingArguments], config: FineTuneConfig) -> None:
    """Raise `ValueError` for an argument that no trainer of `kind` takes, before any work."""
    known = [one.name for one in fields(kind) if one.init]
    for name in config.trainer:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"transformers' {kind.__name__} does not take that: it has no {name!r}{hint}"
            )


def arguments(
    kind: type[TrainingArguments],
    folder: str,
    device: torch.device,
    config: FineTuneConfig,
    **others: Any,
) -> Any:
    """Arguments of a trainer of `kind`; what the user gives replaces ours."""
    ours = {
        "output_dir": folder,
        "max_steps": config.steps,
        "per_device_train_batch_size": config.batch,
        "learning_rate": config.learning_rate,
        "seed": config.seed,
        "logging_steps": max(1, config.steps // LOGGED),
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "use_cpu": device.type == "cpu",
    }
    try:
        made = kind(**{**ours, **others, **config.trainer})
    except (TypeError, ValueError) as error:
        said = str(error).replace(f"{kind.__name__}.__init__() ", "").splitlines()[0]
        raise ValueError(f"transformers' {kind.__name__} does not take that: {said}") from None
    if made.n_gpu > 1:
        raise ValueError(
            f"{made.n_gpu} GPUs are visible, and one process trains on one: name it in "
            "CUDA_VISIBLE_DEVICES"
        )
    if made.device.type != device.type:
        raise ValueError(f"the model is on {device}, but transformers trains on {made.device}")
    return made


class _Trainer(Trainer):
    """Adds the penalty to the loss, and keeps the curve of both."""

    def __init__(self, penalty: FeaturePenalty, report: Report, **settings: Any) -> None:
        super().__init__(**settings)
        self.penalty, self.report = penalty, report
        self.curve: TrainingCurve = []
        self._excess: Tensor | None = None
        "summed since the last point of the curve"
        self._logged = 0

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        trained = inputs["labels"] != UNTRAINED
        with captured(self.model_without_wrapper, self.penalty.chosen.sites) as seen:
            loss, outputs = super().compute_loss(
                model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
            )
        total = self._of_pass(seen, trained, inputs["attention_mask"].bool())
        whole = num_items_in_batch is not None
        mean = total / (num_items_in_batch if whole else trained.sum())
        if whole and self.args.average_tokens_across_devices:
            # Gradients are averaged over processes, and the number of tokens is that of all.
            mean = mean * self.accelerator.num_processes
        self._note(mean.detach() / (1 if whole else self.current_gradient_accumulation_steps))
        if self.penalty.weight:
            loss = loss + self.penalty.weight * mean
        return (loss, outputs) if return_outputs else loss

    @property
    def model_without_wrapper(self) -> nn.Module:
        """The model whose layers hooks are on, whatever distributes it."""
        return self.accelerator.unwrap_model(self.model)

    def _of_pass(self, seen: Mapping[Any, Tensor], trained: Tensor, mask: Tensor) -> Tensor:
        chosen = self.penalty.chosen
        if not self.penalty.weight:
            seen = {site: x.detach() for site, x in seen.items()}
        elif not all(x.requires_grad for x in seen.values()):
            frozen = ", ".join(str(site) for site, x in seen.items() if not x.requires_grad)
            raise ValueError(
                f"nothing that is trained reaches {frozen}, so the penalty on its features can "
                "change nothing: choose features of later layers, train more of the model, and "
                "with gradient checkpointing give use_reentrant=False"
            )
        counts = chosen.counted(seen, trained, mask)
        return excess(chosen.pre_activations(seen), self.penalty.alpha, counts)

    def _note(self, mean: Tensor) -> None:
        self._excess = mean if self._excess is None else self._excess + mean

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        if "loss" in logs and self._excess is not None:
            step = self.state.global_step
            penalty = float(self._excess) / (step - self._logged)
            ce = logs["loss"] - self.penalty.weight * penalty
            self.curve.append({"step": step, "cross_entropy": ce, "penalty": penalty})
            self._excess, self._logged = None, step
            self.report("training", step, self.args.max_steps, f"loss {logs['loss']:.3f}")
        super().log(logs, *args, **kwargs)


def collator(pad: int) -> Any:
    """Texts of one pass, padded on the right; the first token of each, and padding, train nothing:
    nothing comes before the one, and the other is no text."""

    def collate(examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        rows = [example["input_ids"] for example in examples]
        width = max(map(len, rows))
        tokens = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        labels = tokens.masked_fill(mask == 0, UNTRAINED)
        labels[:, 0] = UNTRAINED
        return {"input_ids": tokens, "attention_mask": mask, "labels": labels}

    return collate

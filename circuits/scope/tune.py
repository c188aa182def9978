"""A model fine-tuned with chosen features kept down (SASFT), beside what shows its worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from circuits.runs.estimate_tuning import tuning_estimate
from circuits.runs.trained import (
    BEFORE,
    Train,
    TrainedConfig,
    in_turn,
    nodes_asked,
    side_by_side,
    write_trained,
)
from circuits.runs.training_texts import Material, material
from circuits.runs.tuning_case import TuningCase
from hooked_qwen.nodes import Node
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import end_of_text
from saes.scope.chosen_features import (
    ChosenFeatures,
    check_nodes,
    chosen_features,
    firing,
    mean_pre_activations,
    random_like,
)
from saes.scope.fine_tune import (
    FeaturePenalty,
    FineTuneConfig,
    TrainingCurve,
    check_trainer,
    fine_tune,
)
from saes.scope.tuned_model import WriteConfig
from saes.suite import MlpChoice

PLAIN, CHOSEN, RANDOM = "lambda 0", "chosen features", "random features"
SCHEMA = "tune/1"
Alpha = Literal["mean"] | float


def tune(
    dictionaries: str,
    model: str = "bundled",
    *,
    feature: Sequence[str] = (),
    found: Path | None = None,
    top: int = 10,
    text: Sequence[str],
    prompts: Sequence[str],
    held_out: Sequence[str] = (),
    behaviour: str = "cjk",
    weight: float = 0.01,
    alpha: Alpha = "mean",
    trained: TrainedConfig | None = None,
    training: FineTuneConfig | None = None,
    write: WriteConfig | None = None,
    mlp: MlpChoice = "sae",
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Train on `text` with a penalty on features, and judge it beside three other models.

    The model before; the same training with lambda (`weight`) 0; and the same with as many random
    features that are on about as often. Judged are a behaviour of what is written after `prompts`,
    the cross-entropy on texts that were `held_out` (one in ten of `text` where none are given), and
    the features' activations. The model with the chosen features goes to the folder `out`, which
    `--model` takes, with `tune.json` and `tune.svg`. Without `out` nothing is trained: the record
    says what it would take.

    Raises `ValueError` for features or texts that are not there, and where `out` holds something
    else, unless by `force`.
    """
    trained, training = trained or TrainedConfig(), training or FineTuneConfig()
    check_trainer(TrainingArguments, training)
    case = TuningCase.opened(
        dictionaries,
        model,
        behaviour,
        training,
        write or WriteConfig(seed=training.seed),
        rank=trained.rank,
        mlp=mlp,
        placement=placement,
    )
    given = _TuningInputs(
        case=case,
        nodes=nodes_asked(feature, found, top),
        texts=material(case.tokenizer, text, held_out, prompts, trained),
        weight=weight,
        alpha=alpha,
    )
    check_nodes(case.suite, given.nodes)
    if out is None:
        return _estimate(given)
    return write_trained(
        out,
        SCHEMA,
        {"behaviour": behaviour, "lambda": weight, "alpha": alpha, "batch": training.batch}
        | case.settings(),
        {"features": [str(node) for node in given.nodes]}
        | case.made_from(given.texts.train, given.texts.clean, given.texts.prompts),
        lambda folder: _tuned(given, folder, report),
        force=force,
    )


@dataclass(frozen=True, kw_only=True)
class _TuningInputs:
    """What is trained, on what, and with which penalty."""

    case: TuningCase
    nodes: tuple[Node, ...]
    texts: Material
    weight: float
    alpha: Alpha


def _estimate(given: _TuningInputs) -> dict[str, Any]:
    """What it would take: weights, memory and passes; and the features."""
    taken = tuning_estimate(
        given.case.start,
        given.case.training,
        arms=3,
        texts=len(given.texts.train),
        rows=given.case.training.batch,
        longest=max(map(len, given.texts.train)),
    )
    return taken | {"features": [str(node) for node in given.nodes]}


def _tuned(given: _TuningInputs, folder: Path, report: Report) -> dict[str, Any]:
    """Train each arm, keep that of the chosen features in `folder`, and compare them all."""
    case, texts = given.case, given.texts
    plain = case.start.plain()
    case.suite.notify_of_another_model(plain)
    chosen, random, alphas = _features(plain, given)
    judge = case.judge(texts.prompts, texts.clean, {CHOSEN: chosen, RANDOM: random}, report)
    before = judge(plain)
    del plain  # one model is in memory at a time

    def arm(which: ChosenFeatures, weight: float) -> Train:
        return _arm(given, FeaturePenalty(which, alphas[which.nodes], weight))

    arms = {
        PLAIN: arm(chosen, 0.0),
        CHOSEN: arm(chosen, given.weight),
        RANDOM: arm(random, given.weight),
    }
    judged = {BEFORE: before} | in_turn(case.start, arms, judge, CHOSEN, folder, report)
    return {
        "features": _named(chosen, alphas),
        "random_features": _named(random, alphas),
        "texts": _sizes(texts),
        **side_by_side(judged),
    }


def _arm(given: _TuningInputs, penalty: FeaturePenalty) -> Train:
    pad, rows, training = end_of_text(given.case.tokenizer), given.texts.train, given.case.training

    def train(model: nn.Module, report: Report) -> TrainingCurve:
        return fine_tune(model, rows, penalty, training, pad=pad, report=report)

    return train


def _features(
    model: nn.Module, given: _TuningInputs
) -> tuple[ChosenFeatures, ChosenFeatures, dict[Any, Tensor]]:
    """The features asked for, random ones like them, and the alphas of both."""
    suite, nodes, rows = given.case.suite, given.nodes, given.texts.train
    chosen = chosen_features(suite, nodes, model)
    fired = firing(model, suite, sorted({node.site for node in nodes}), rows)
    others = random_like(nodes, fired, seed=given.case.training.seed)
    random = chosen_features(suite, others, model)
    alphas = {
        one.nodes: mean_pre_activations(model, one, rows)
        if given.alpha == "mean"
        else torch.full((len(one.nodes),), float(given.alpha), dtype=torch.float64)
        for one in (chosen, random)
    }
    return chosen, random, alphas


def _named(chosen: ChosenFeatures, alphas: dict[Any, Tensor]) -> list[dict[str, Any]]:
    return [
        {"feature": str(node), "alpha": value}
        for node, value in zip(chosen.nodes, alphas[chosen.nodes].tolist(), strict=True)
    ]


def _sizes(texts: Material) -> dict[str, Any]:
    return {
        "train": len(texts.train),
        "train_tokens": sum(map(len, texts.train)),
        "held_out": {name: len(rows) for name, rows in texts.clean.items()},
        "prompts": len(texts.prompts),
    }

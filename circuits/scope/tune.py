"""A model fine-tuned with chosen features kept down (SASFT), beside what shows its worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import TrainingArguments

from circuits.runs.estimate_tuning import tuning_estimate
from circuits.runs.overwrite import digest
from circuits.runs.trained import (
    BEFORE,
    Material,
    StartingModel,
    Train,
    TrainedConfig,
    compared,
    in_turn,
    material,
    nodes_asked,
    notify_of_no_behaviour,
    write_trained,
)
from hooked_qwen.load import load_tokenizer
from hooked_qwen.nodes import Node
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import end_of_text
from saes.scope.behaviour import Behaviour, behaviour_called
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
from saes.scope.tuned_model import Judge, WriteConfig
from saes.suite import MlpChoice, Suite, hash_of, load_suite

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
    suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
    tokenizer = load_tokenizer(model)
    given = _Given(
        nodes=nodes_asked(feature, found, top),
        behaviour=behaviour_called(behaviour),
        suite=suite,
        tokenizer=tokenizer,
        texts=material(tokenizer, text, held_out, prompts, trained),
        start=StartingModel(
            source=model, placement=placement, rank=trained.rank, seed=training.seed
        ),
        weight=weight,
        alpha=alpha,
        training=training,
        write=write or WriteConfig(seed=training.seed),
    )
    check_nodes(suite, given.nodes)
    if out is None:
        return _estimate(given)
    settings = {"behaviour": behaviour, **_settings(given)}
    made_from = settings | {
        "features": [str(node) for node in given.nodes],
        "dictionaries": hash_of(dictionaries),
        "model": given.start.hash,
        "dtype": placement.dtype or "float32",
        "texts": digest(given.texts.train, given.texts.clean, given.texts.prompts),
    }

    def run(folder: Path) -> dict[str, Any]:
        return {"schema": SCHEMA, **settings, **_tuned(given, folder, report)}

    return write_trained(out, made_from, force, run)


@dataclass(frozen=True, kw_only=True)
class _Given:
    """What is trained, on what, with which penalty, and how it is judged."""

    start: StartingModel
    suite: Suite
    nodes: tuple[Node, ...]
    weight: float
    alpha: Alpha
    behaviour: Behaviour
    tokenizer: Any
    texts: Material
    training: FineTuneConfig
    write: WriteConfig


def _settings(given: _Given) -> dict[str, Any]:
    """What the record says of how it was trained."""
    training, write = given.training, given.write
    return {
        "lambda": given.weight,
        "alpha": given.alpha,
        "rank": given.start.rank,
        "steps": training.steps,
        "batch": training.batch,
        "learning_rate": training.learning_rate,
        "trainer": dict(training.trainer),
        "written": {"tokens": write.tokens, "samples": write.samples},
        "seed": training.seed,
    }


def _estimate(given: _Given) -> dict[str, Any]:
    """What it would take: weights, memory and passes; and the features."""
    taken = tuning_estimate(
        given.start,
        given.training,
        arms=3,
        texts=len(given.texts.train),
        rows=given.training.batch,
        longest=max(map(len, given.texts.train)),
    )
    return taken | {"features": [str(node) for node in given.nodes]}


def _tuned(given: _Given, folder: Path, report: Report) -> dict[str, Any]:
    """Train each arm, keep that of the chosen features in `folder`, and compare them all."""
    plain = given.start.plain()
    given.suite.notify_of_another_model(plain)
    chosen, random, alphas = _features(plain, given)
    judge = Judge(
        tokenizer=given.tokenizer,
        suite=given.suite,
        prompts=given.texts.prompts,
        behaviour=given.behaviour,
        clean=given.texts.clean,
        features={CHOSEN: chosen, RANDOM: random},
        write=given.write,
        report=report,
    )
    before = judge(plain)
    del plain  # one model is in memory at a time

    def arm(which: ChosenFeatures, weight: float) -> Train:
        return _arm(given, FeaturePenalty(which, alphas[which.nodes], weight))

    arms = {
        PLAIN: arm(chosen, 0.0),
        CHOSEN: arm(chosen, given.weight),
        RANDOM: arm(random, given.weight),
    }
    judged = {BEFORE: before} | in_turn(given.start, arms, judge, CHOSEN, folder, report)
    notify_of_no_behaviour(judged)
    return {
        "features": _named(chosen, alphas),
        "random_features": _named(random, alphas),
        "texts": _sizes(given.texts),
        "arms": judged,
        "against": {
            PLAIN: compared(judged, PLAIN, [CHOSEN, RANDOM]),
            BEFORE: compared(judged, BEFORE, [PLAIN, CHOSEN, RANDOM]),
        },
    }


def _arm(given: _Given, penalty: FeaturePenalty) -> Train:
    pad = end_of_text(given.tokenizer)

    def train(model: nn.Module, report: Report) -> TrainingCurve:
        return fine_tune(model, given.texts.train, penalty, given.training, pad=pad, report=report)

    return train


def _features(
    model: nn.Module, given: _Given
) -> tuple[ChosenFeatures, ChosenFeatures, dict[Any, Tensor]]:
    """The features asked for, random ones like them, and the alphas of both."""
    suite, nodes, rows = given.suite, given.nodes, given.texts.train
    chosen = chosen_features(suite, nodes, model)
    fired = firing(model, suite, sorted({node.site for node in nodes}), rows)
    others = random_like(nodes, fired, seed=given.training.seed)
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

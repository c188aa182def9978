"""A model fine-tuned with chosen features kept down (SASFT), beside what shows its worth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from circuits.runs.estimate_tuning import tuning_estimate
from circuits.runs.overwrite import digest
from circuits.runs.trained import (
    BEFORE,
    Material,
    Start,
    Train,
    TrainedConfig,
    compared,
    in_turn,
    material,
    nodes_asked,
    write_trained,
)
from hooked_qwen.load import load_tokenizer
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import end_of_text
from saes.scope.behaviour import behaviour_called
from saes.scope.chosen_features import (
    ChosenFeatures,
    check_nodes,
    chosen_features,
    firing,
    mean_pre_activations,
    random_like,
)
from saes.scope.fine_tune import Curve, FeaturePenalty, FineTuneConfig, fine_tune
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
    write, nodes = write or WriteConfig(seed=training.seed), nodes_asked(feature, found, top)
    how = behaviour_called(behaviour)
    suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
    tokenizer = load_tokenizer(model)
    texts = material(tokenizer, text, held_out, prompts, trained)
    start = Start(source=model, placement=placement, rank=trained.rank, seed=training.seed)
    check_nodes(suite, nodes)
    if out is None:
        return tuning_estimate(
            start,
            training,
            arms=3,
            texts=len(texts.train),
            rows=training.batch,
            longest=max(map(len, texts.train)),
        )
    settings = {
        "behaviour": behaviour,
        "lambda": weight,
        "alpha": alpha,
        "rank": trained.rank,
        "steps": training.steps,
        "batch": training.batch,
        "learning_rate": training.learning_rate,
        "trainer": dict(training.trainer),
        "written": {"tokens": write.tokens, "samples": write.samples},
        "seed": training.seed,
    }
    made_from = settings | {
        "features": [str(node) for node in nodes],
        "dictionaries": hash_of(dictionaries),
        "model": start.hash,
        "dtype": placement.dtype or "float32",
        "texts": digest(texts.train, texts.clean, texts.prompts),
    }

    def run(folder: Path) -> dict[str, Any]:
        plain = start.plain()
        suite.notify_of_another_model(plain)
        chosen, random, alphas = _features(plain, suite, nodes, texts, alpha, training.seed)
        judge = Judge(
            tokenizer=tokenizer,
            suite=suite,
            prompts=texts.prompts,
            behaviour=how,
            clean=texts.clean,
            features={CHOSEN: chosen, RANDOM: random},
            write=write,
            report=report,
        )
        before = judge(plain)
        del plain

        def arm(which: ChosenFeatures, weight: float) -> Train:
            penalty = FeaturePenalty(which, alphas[which.nodes], weight)

            def train(model: nn.Module) -> Curve:
                pad = end_of_text(tokenizer)
                return fine_tune(model, texts.train, penalty, training, pad=pad, report=report)

            return train

        arms = {PLAIN: arm(chosen, 0.0), CHOSEN: arm(chosen, weight), RANDOM: arm(random, weight)}
        judged = {BEFORE: before} | in_turn(start, arms, judge, CHOSEN, folder, report)
        return {
            "schema": SCHEMA,
            **settings,
            "features": _named(chosen, alphas),
            "random_features": _named(random, alphas),
            "texts": _sizes(texts),
            "arms": judged,
            "against": {
                PLAIN: compared(judged, PLAIN, [CHOSEN, RANDOM]),
                BEFORE: compared(judged, BEFORE, [PLAIN, CHOSEN, RANDOM]),
            },
        }

    return write_trained(out, made_from, force, run)


def _features(
    model: nn.Module, suite: Suite, nodes: Any, texts: Material, alpha: Alpha, seed: int
) -> tuple[ChosenFeatures, ChosenFeatures, dict[Any, Tensor]]:
    """The features asked for, random ones like them, and the alphas of both."""
    chosen = chosen_features(suite, nodes, model)
    names = sorted({node.site for node in nodes})
    fired = firing(model, suite, names, texts.train)
    random = chosen_features(suite, random_like(nodes, fired, seed=seed), model)
    alphas = {
        one.nodes: mean_pre_activations(model, one, texts.train)
        if alpha == "mean"
        else torch.full((len(one.nodes),), float(alpha), dtype=torch.float64)
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

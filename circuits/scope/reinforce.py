"""A model trained by GRPO against a behaviour, one rollout of each group steered toward it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from circuits.runs.estimate_tuning import tuning_estimate
from circuits.runs.trained import (
    BEFORE,
    Train,
    TrainedConfig,
    in_turn,
    side_by_side,
    write_trained,
)
from circuits.runs.training_texts import clean_rows, prompts_of
from circuits.runs.tuning_case import TuningCase
from circuits.scope.tune import CHOSEN, RANDOM
from hooked_qwen.nodes import Node
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import encode_prompt
from saes.scope.chosen_features import (
    FiringStatistics,
    check_nodes,
    chosen_features,
    firing,
    random_like,
)
from saes.scope.fine_tune import FineTuneConfig, TrainingCurve, check_trainer
from saes.scope.tuned_model import WriteConfig
from saes.suite import MlpChoice, Suite

if TYPE_CHECKING:
    from saes.scope.steered_grpo import RolloutConfig

VANILLA, STEERED, RANDOMLY = "vanilla GRPO", "one rollout steered", "steered at random"
SCHEMA = "reinforce/1"


def reinforce(
    dictionaries: str,
    model: str = "bundled",
    *,
    feature: str,
    prompts: Sequence[str],
    held_out: Sequence[str],
    behaviour: str = "repetition",
    strength: float = 1.0,
    trained: TrainedConfig | None = None,
    training: FineTuneConfig | None = None,
    rollouts: Mapping[str, Any] | None = None,
    write: WriteConfig | None = None,
    mlp: MlpChoice = "sae",
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Train against a behaviour after `prompts`, and judge the model beside three others.

    Every other prompt is trained on, and the rest are judged on. One rollout of each group is
    written with the decoder direction of `feature` added, `strength` times its largest activation
    in the texts. Beside it: the model before, GRPO without steering, and with a random feature as
    often on, moved as far. `rollouts` are fields of `saes.scope.steered_grpo.RolloutConfig`. The
    model goes to the folder `out` as that of `tune`; without `out` nothing is trained, and the
    record says what it would take.

    Raises `ValueError` for a feature that is not there, is never on or writes several sites, for
    fewer than two prompts, and where `out` holds something else, unless by `force`.
    """
    trained, training = trained or TrainedConfig(), training or FineTuneConfig()
    made = _rollouts(rollouts or {}, training)
    case = TuningCase.opened(
        dictionaries,
        model,
        behaviour,
        training,
        write or WriteConfig(seed=training.seed, tokens=made.tokens),
        rank=trained.rank,
        mlp=mlp,
        placement=placement,
    )
    given = _ReinforcingInputs(
        case=case,
        node=Node.parse(feature),
        strength=strength,
        clean=clean_rows(case.tokenizer, held_out, trained),
        prompts=prompts_of(case.tokenizer, prompts),
        rollouts=made,
    )
    if len(given.prompts) < 2:
        raise ValueError("there is one prompt only: half are trained on, half are judged on")
    check_nodes(case.suite, [given.node])
    if out is None:
        return _estimate(given)
    settings = {
        "behaviour": behaviour,
        "feature": str(given.node),
        "strength": strength,
        "group": made.group,
        "prompts_in_a_step": made.prompts,
    }
    return write_trained(
        out,
        SCHEMA,
        settings | case.settings(),
        case.made_from(given.clean, given.prompts),
        lambda folder: _reinforced(given, folder, report),
        force=force,
    )


@dataclass(frozen=True, kw_only=True)
class _ReinforcingInputs:
    """What is trained, on what, and how it is steered."""

    case: TuningCase
    node: Node
    strength: float
    clean: Mapping[str, list[list[int]]]
    prompts: tuple[str, ...]
    rollouts: "RolloutConfig"

    @property
    def trained_on(self) -> tuple[str, ...]:
        return self.prompts[::2]

    @property
    def judged_on(self) -> tuple[str, ...]:
        return self.prompts[1::2]


def _rollouts(fields: Mapping[str, Any], training: FineTuneConfig) -> "RolloutConfig":
    # trl takes seconds to import, and is an extra: only who trains with it needs it.
    try:
        from saes.scope.steered_grpo import GRPOConfig, RolloutConfig
    except ImportError:
        raise ValueError(
            "GRPO is trl's, which is not installed: pip install 'qwen-circuits[tune]'"
        ) from None
    check_trainer(GRPOConfig, training)
    return RolloutConfig(**fields)


def _estimate(given: _ReinforcingInputs) -> dict[str, Any]:
    """What it would take: weights, memory and passes."""
    rollouts = given.rollouts
    longest = max(len(encode_prompt(given.case.tokenizer, prompt)) for prompt in given.trained_on)
    return tuning_estimate(
        given.case.start,
        given.case.training,
        arms=3,
        texts=len(given.trained_on),
        rows=rollouts.group,
        longest=longest + rollouts.tokens,
        passes_in_a_step=rollouts.prompts,
        written=rollouts.group * rollouts.prompts * rollouts.tokens,
    )


def _reinforced(given: _ReinforcingInputs, folder: Path, report: Report) -> dict[str, Any]:
    """Train each arm, keep the steered one in `folder`, and compare them all."""
    case, suite, node = given.case, given.case.suite, given.node
    plain = case.start.plain()
    suite.notify_of_another_model(plain)
    fired = firing(plain, suite, [node.site], list(chain(*given.clean.values())))
    (other,) = random_like([node], fired, seed=case.training.seed)
    features = {
        CHOSEN: chosen_features(suite, [node], plain),
        RANDOM: chosen_features(suite, [other], plain),
    }
    judge = case.judge(given.judged_on, given.clean, features, report)
    before = judge(plain)
    del plain  # one model is in memory at a time
    push = _push(suite, node, fired[node.site], given.strength)
    aside = _as_far(suite, other, push)
    arms = {
        VANILLA: _arm(given, None),
        STEERED: _arm(given, push),
        RANDOMLY: _arm(given, aside),
    }
    judged = {BEFORE: before} | in_turn(case.start, arms, judge, STEERED, folder, report)
    return {
        "random_feature": str(other),
        "length": float(push.norm()),
        "texts": {
            "trained_on": len(given.trained_on),
            "judged_on": len(given.judged_on),
            "held_out": {name: len(rows) for name, rows in given.clean.items()},
        },
        **side_by_side(judged),
    }


def _arm(given: _ReinforcingInputs, vector: Tensor | None) -> Train:
    """GRPO with `vector` added in one rollout of each group, or with nothing added."""
    from saes.scope.steered_grpo import Steering
    from saes.scope.steered_grpo import reinforce as train_by_grpo

    case = given.case
    site = case.suite[given.node.site].target
    steering = None if vector is None else Steering(site=site, vector=vector)

    def train(model: nn.Module, report: Report) -> TrainingCurve:
        return train_by_grpo(
            model,
            case.tokenizer,
            given.trained_on,
            case.behaviour,
            steering,
            case.training,
            given.rollouts,
            report=report,
        )

    return train


def _push(suite: Suite, node: Node, fired: FiringStatistics, strength: float) -> Tensor:
    """What is added for a feature: strength times its largest activation times its decoder row."""
    dictionary = suite[node.site]
    if len(dictionary.writes) > 1:
        raise ValueError(f"{node.site} writes several sites: steer by a feature that writes one")
    largest = float(fired.largest[int(node.feature)])
    if not largest > 0:
        raise ValueError(
            f"{node} is on at no token of the held-out texts, so its largest activation is no "
            "unit: give texts that turn it on"
        )
    return strength * largest * dictionary.W_dec[int(node.feature)].detach()


def _as_far(suite: Suite, node: Node, push: Tensor) -> Tensor:
    """Another feature's decoder direction, as long as `push`."""
    own = suite[node.site].W_dec[int(node.feature)].detach()
    return own / own.norm().clamp_min(1e-12) * push.norm()

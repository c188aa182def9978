"""A model trained by GRPO against a behaviour, one rollout of each group steered toward it."""

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from circuits.runs.estimate_tuning import tuning_estimate
from circuits.runs.overwrite import digest
from circuits.runs.trained import (
    BEFORE,
    Start,
    Train,
    TrainedConfig,
    clean_rows,
    compared,
    in_turn,
    prompts_of,
    write_trained,
)
from circuits.scope.tune import CHOSEN, RANDOM
from hooked_qwen.load import load_tokenizer
from hooked_qwen.nodes import Node
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import encode_prompt
from saes.scope.behaviour import behaviour_called
from saes.scope.chosen_features import (
    Firing,
    check_nodes,
    chosen_features,
    firing,
    random_like,
)
from saes.scope.fine_tune import Curve, FineTuneConfig
from saes.scope.tuned_model import Judge, WriteConfig
from saes.suite import MlpChoice, Suite, hash_of, load_suite

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
    # trl takes seconds to import, and is an extra: only who trains with it needs it.
    try:
        from saes.scope.steered_grpo import RolloutConfig, Steering
        from saes.scope.steered_grpo import reinforce as train_by_grpo
    except ImportError:
        raise ValueError(
            "GRPO is trl's, which is not installed: pip install 'qwen-circuits[tune]'"
        ) from None

    trained, training = trained or TrainedConfig(), training or FineTuneConfig()
    made = RolloutConfig(**(rollouts or {}))
    write = write or WriteConfig(seed=training.seed, tokens=made.tokens)
    node = Node.parse(feature)
    how = behaviour_called(behaviour)
    suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
    tokenizer = load_tokenizer(model)
    clean, asked = clean_rows(tokenizer, held_out, trained), prompts_of(tokenizer, prompts)
    if len(asked) < 2:
        raise ValueError("there is one prompt only: half are trained on, half are judged on")
    start = Start(source=model, placement=placement, rank=trained.rank, seed=training.seed)
    check_nodes(suite, [node])
    if out is None:
        longest = max(len(encode_prompt(tokenizer, prompt)) for prompt in asked[::2])
        return tuning_estimate(
            start,
            training,
            arms=3,
            texts=len(asked[::2]),
            rows=made.group,
            longest=longest + made.tokens,
            passes_in_a_step=made.prompts,
            written=made.group * made.prompts * made.tokens,
        )
    settings = {
        "behaviour": behaviour,
        "feature": str(node),
        "strength": strength,
        "rank": trained.rank,
        "steps": training.steps,
        "group": made.group,
        "prompts_in_a_step": made.prompts,
        "learning_rate": training.learning_rate,
        "trainer": dict(training.trainer),
        "written": {"tokens": write.tokens, "samples": write.samples},
        "seed": training.seed,
    }
    made_from = settings | {
        "dictionaries": hash_of(dictionaries),
        "model": start.hash,
        "dtype": placement.dtype or "float32",
        "texts": digest(clean, asked),
    }

    def run(folder: Path) -> dict[str, Any]:
        plain = start.plain()
        suite.notify_of_another_model(plain)
        chosen = chosen_features(suite, [node], plain)
        fired = firing(plain, suite, [node.site], list(chain(*clean.values())))
        (other,) = random_like([node], fired, seed=training.seed)
        judge = Judge(
            tokenizer=tokenizer,
            suite=suite,
            prompts=asked[1::2],
            behaviour=how,
            clean=clean,
            features={CHOSEN: chosen, RANDOM: chosen_features(suite, [other], plain)},
            write=write,
            report=report,
        )
        before = judge(plain)
        del plain
        push = _push(suite, node, fired[node.site], strength)
        site = suite[node.site].target
        own = suite[node.site].W_dec[int(other.feature)].detach()
        aside = own / own.norm().clamp_min(1e-12) * push.norm()

        def arm(vector: Tensor | None) -> Train:
            steering = None if vector is None else Steering(site=site, vector=vector)

            def train(model: nn.Module) -> Curve:
                return train_by_grpo(
                    model,
                    tokenizer,
                    asked[::2],
                    how,
                    steering,
                    training,
                    made,
                    report=report,
                )

            return train

        arms = {VANILLA: arm(None), STEERED: arm(push), RANDOMLY: arm(aside)}
        judged = {BEFORE: before} | in_turn(start, arms, judge, STEERED, folder, report)
        return {
            "schema": SCHEMA,
            **settings,
            "random_feature": str(other),
            "length": float(push.norm()),
            "texts": {
                "trained_on": len(asked[::2]),
                "judged_on": len(asked[1::2]),
                "held_out": {name: len(rows) for name, rows in clean.items()},
            },
            "arms": judged,
            "against": {
                VANILLA: compared(judged, VANILLA, [STEERED, RANDOMLY]),
                BEFORE: compared(judged, BEFORE, [VANILLA, STEERED, RANDOMLY]),
            },
        }

    return write_trained(out, made_from, force, run)


def _push(suite: Suite, node: Node, fired: Firing, strength: float) -> Tensor:
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

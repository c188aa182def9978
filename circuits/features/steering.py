"""A sweep of strengths over features and controls as one strict JSON record.

    {"schema": "steering/1", "do": "add", "during": "all", "unit": "max", "goal": "more",
     "strengths": [...], "scorer": {...}, "form": "text", "prompts": [...], "instruction": ...,
     "generation": {...},
     "features": [{"feature": "resid_post.3/86", "label": .., "by": ["output"], ...}, ...],
     "plain": {what the model writes as it is}, "instructed": {after the instruction, or null},
     "arms": [{"method": "feature", "direction": .., "strength": 1, "concept": .., ...}, ...],
     "methods": [{"name": "difference of means", "score": {"value": .., "interval": ..},
                  "difference": .. or null, "score_by_prompt": [..], ..}, ..],
     "baseline": "instruction", "chosen_on": "other prompts",
     "selection": {"output": .., "activation": .., ..} or null, "notes": [...]}

`methods` are sorted: what does best, a control or not, comes first; their `difference` is that from
the group `baseline`, prompt by prompt. Every number of an arm is a mean over prompts with a 95 %
bootstrap interval over them; `by_prompt` is the concept of each, None where nothing is told of it.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.decomposed_run import norm_limits
from circuits.edits.steered import Continuations, SteeredWriter, instructed, settings
from circuits.features.named import Named, key_of
from circuits.features.steering_arms import Arm, Form, SteerConfig, arms_of, directions_of
from circuits.features.steering_choice import ConceptTexts, SteeringFeature, SteeringFeatures, only
from circuits.features.steering_methods import ScoredContinuations, methods_of, selection_of
from circuits.graph import rounded
from hooked_qwen.nodes import Node
from hooked_qwen.notices import counted
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import encode_prompt, encode_request, end_of_text, pad_left
from saes.scope.steering import ENCODER, FEATURE, RANDOM
from saes.scope.steering_score import LEAST
from saes.scope.text_scores import Scorer
from saes.suite import Suite

SCHEMA = "steering/1"
NORMS_AT_ONCE = 16
TOKENS: Mapping[Form, Callable[[Any, str], list[int]]] = {
    "text": encode_prompt,
    "chat": encode_request,
}
"What the model reads of a prompt, or of an instruction with it."


def rows_of_prompts(tokenizer: Any, prompts: Sequence[str], form: Form) -> list[list[int]]:
    """Tokens of prompts as the model reads them.

    Raises `ValueError` without prompts, and for a chat where the tokenizer has no template.
    """
    rows = [TOKENS[form](tokenizer, text) for text in prompts]
    if not rows or not all(rows):
        raise ValueError("there is no prompt to go on from: give --prompt, each with some text")
    return rows


def steered(
    model: TransformerBridge,
    suite: Suite,
    choice: SteeringFeatures,
    prompts: Sequence[str],
    scorer: Scorer,
    named: Named,
    *,
    examples: ConceptTexts | None = None,
    config: SteerConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """The record of a sweep over the chosen features, beside every control that there can be.

    Raises `ValueError` without prompts, and for a chat where the tokenizer has no template.
    """
    config = config or SteerConfig()
    tokens_of = partial(TOKENS[config.form], model.tokenizer)
    rows = rows_of_prompts(model.tokenizer, prompts, config.form)
    suite = only(suite, {one.node.site for one in choice.features}).fitting(model)
    positive = None if examples is None else examples.positive
    directions, suite = directions_of(suite, choice, positive, config)
    batch = pad_left(rows, end_of_text(model.tokenizer))
    limits = norm_limits(model, suite, batch, batch_size=NORMS_AT_ONCE)
    arms = arms_of(suite, directions, choice.features, limits, config)
    writer = SteeredWriter(
        model, suite, prompts, config.generation, rows=rows, during=config.during
    )
    written = [writer.plain()]
    if config.instruction:
        told = [instructed(config.instruction, text) for text in prompts]
        written.append(writer.plain([tokens_of(text) for text in told]))
    alone = len(written)
    written += writer.under([arm.edit for arm in arms], report=report)
    judged = ScoredContinuations.of(written, scorer, config.goal)
    methods, simple = methods_of(arms, judged, told=bool(config.instruction), alone=alone)
    labels = named.of([*(d.node for d in directions if d.method in (FEATURE, RANDOM))])
    return {
        "schema": SCHEMA,
        "do": config.do,
        "during": config.during,
        "unit": config.unit,
        "goal": config.goal,
        "strengths": list(config.strengths),
        "scorer": {"name": scorer.name, "said": scorer.said},
        "form": config.form,
        "prompts": list(prompts),
        "instruction": config.instruction,
        "generation": settings(config.generation),
        "features": [_feature(one, choice, labels) for one in choice.features],
        "candidates": choice.candidates,
        "plain": judged.record(0),
        "instructed": judged.record(1) if config.instruction else None,
        "arms": [_arm(arm, labels) | judged.record(alone + i) for i, arm in enumerate(arms)],
        "chosen_on": "other prompts" if len(prompts) >= LEAST else "the same prompts",
        "methods": methods,
        "baseline": simple,
        "selection": selection_of(arms, judged, choice.features, alone),
        "notes": [
            *_few(len(prompts)),
            *_notes(arms, written[alone:], choice, config, positive is not None),
        ],
    }


def _arm(arm: Arm, labels: Mapping[Node, str]) -> dict[str, Any]:
    direction = arm.direction
    return {
        "method": direction.method,
        "direction": direction.name,
        "of": None if direction.of is None else key_of(direction.of),
        "label": labels.get(direction.node),
        "groups": list(arm.groups),
        "strength": arm.strength,
        **_length(arm),
    }


def _length(arm: Arm) -> dict[str, Any]:
    """The activation that the strength stands for, and how long a vector it writes.

    None of a scaling, which multiplies whatever is there.
    """
    (operation,) = arm.edit.operations
    if operation.do == "scale":
        return {"alpha": None, "norm": None}
    return {
        "alpha": rounded(arm.strength * arm.direction.unit),
        "norm": rounded(abs(arm.strength) * arm.direction.norm),
    }


def _feature(
    one: SteeringFeature, choice: SteeringFeatures, labels: Mapping[Node, str]
) -> dict[str, Any]:
    between = one.contrast
    return {
        "feature": key_of(one.node),
        "label": labels[one.node],
        "by": list(one.by),
        "output_score": rounded(one.output_score),
        "input_score": rounded(one.input_score),
        "effect": None if between is None else rounded(between.effect),
        "on_positive": None if between is None else rounded(between.on_positive),
        "on_negative": None if between is None else rounded(between.on_negative),
        "largest": rounded(choice.usage.largest_of(one.node)),
        "density": rounded(choice.usage.density_of(one.node)),
        "promoted": list(one.promoted),
    }


def _few(prompts: int) -> list[str]:
    """What cannot be concluded from so few prompts."""
    if prompts >= LEAST:
        return []
    alone = ", and one prompt has no interval" if prompts == 1 else ""
    return [
        f"{counted(prompts, 'prompt')}: direction and strength are chosen on the prompts that they "
        f"are judged on, which favours what has many to choose from{alone}; give {LEAST} prompts "
        "or more"
    ]


def _notes(
    arms: Sequence[Arm],
    written: Sequence[Continuations],
    choice: SteeringFeatures,
    config: SteerConfig,
    has_examples: bool,
) -> list[str]:
    """What is missing, and why."""
    found = []
    if config.instruction is None:
        found.append("no instruction was given (--instruction), so none stands beside the features")
    if not has_examples:
        found.append(
            "no examples were given (--positive, --negative), so there is no difference of means"
        )
    for method, said in (
        (RANDOM, "no other feature of the dictionary is ever on"),
        (ENCODER, "its dictionary writes elsewhere than it reads"),
    ):
        there = {arm.direction.of for arm in arms if arm.direction.method == method}
        found += [
            f"{key_of(one.node)} has no {method}: {said}"
            for one in choice.features
            if one.node not in there
        ]
    idle = [
        f"{arm.direction.name} ({arm.direction.method}) at {arm.strength:g}"
        for arm, one in zip(arms, written, strict=True)
        if not one.fired
    ]
    if idle:
        found.append(f"changed nothing, as what is edited was never on: {', '.join(idle)}")
    return found

"""A sweep of strengths over features and controls as one strict JSON record.

    {"schema": "steering/1", "do": "add", "during": "all", "unit": "max", "goal": "more",
     "strengths": [...], "scorer": {...}, "form": "text", "prompts": [...], "instruction": ...,
     "generation": {...},
     "features": [{"feature": "resid_post.3/86", "label": .., "by": ["output"], ...}, ...],
     "plain": {what the model writes as it is}, "instructed": {after the instruction, or null},
     "arms": [{"method": "feature", "direction": .., "strength": 1, "concept": .., ...}, ...],
     "methods": [{"name": "difference of means", "score": {"value": .., "interval": ..}, ..}, ..],
     "selection": {"output": .., "activation": .., "ratio": ..} or null, "notes": [...]}

`methods` are sorted: what does best, a control or not, comes first. Every number of an arm is a
mean over prompts with a 95 % bootstrap interval over them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.recorded import norm_limits
from circuits.edits.figures import figure, mean_of
from circuits.edits.steered import Writer, Written, instructed, settings
from circuits.features.named import Named, key_of
from circuits.features.steering_arms import Arm, Form, SteerConfig, arms_of, directions_of
from circuits.features.steering_choice import Choice, Chosen, Examples, only
from circuits.graph import rounded
from hooked_qwen.nodes import Node
from hooked_qwen.progress import Report, silent
from hooked_qwen.tokens import encode_prompt, encode_request, end_of_text, pad_left
from saes.evaluation.bootstrap import interval, ratio, ratio_interval, resamples
from saes.scope.steering import ENCODER, FEATURE, MEANS, RANDOM
from saes.scope.steering_score import Goal, chosen, fluency, score, wanted
from saes.scope.text_scores import Scorer
from saes.suite import Suite

SCHEMA = "steering/1"
NORMS_AT_ONCE = 16
GROUPS = {
    "given": "features that were named",
    "output": "features by output score",
    "activation": "features by activation",
    "negative": "the sign turned",
    RANDOM: "random features",
    ENCODER: "encoder directions",
    MEANS: "difference of means",
    "instruction": "instruction in the prompt",
    "plain": "no steering",
}
"What is compared, in the words of a table."
TOKENS: Mapping[Form, Callable[[Any, str], list[int]]] = {
    "text": encode_prompt,
    "chat": encode_request,
}
"What the model reads of a prompt, or of an instruction with it."


def steered(
    model: TransformerBridge,
    suite: Suite,
    choice: Choice,
    prompts: Sequence[str],
    scorer: Scorer,
    named: Named,
    *,
    examples: Examples | None = None,
    config: SteerConfig | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """The record of a sweep over the chosen features, beside every control that there can be.

    Raises `ValueError` without prompts, and for a chat where the tokenizer has no template.
    """
    config = config or SteerConfig()
    tokens_of = partial(TOKENS[config.form], model.tokenizer)
    rows = [tokens_of(text) for text in prompts]
    if not rows or not all(rows):
        raise ValueError("there is no prompt to go on from: give --prompt, each with some text")
    suite = only(suite, {one.node.site for one in choice.features}).fitting(model)
    positive = None if examples is None else examples.positive
    directions, suite = directions_of(suite, choice, positive, config)
    batch = pad_left(rows, end_of_text(model.tokenizer))
    limits = norm_limits(model, suite, batch, batch_size=NORMS_AT_ONCE)
    arms = arms_of(suite, directions, choice.features, limits, config)
    writer = Writer(model, suite, prompts, config.generation, rows=rows)
    written = [writer.plain()]
    if config.instruction:
        told = [instructed(config.instruction, text) for text in prompts]
        written.append(writer.plain([tokens_of(text) for text in told]))
    alone = len(written)
    written += writer.under([arm.edit for arm in arms], report=report)
    judged = Judged.of(written, scorer, config.goal)
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
        "methods": _methods(arms, judged, config, alone),
        "selection": _selection(arms, judged, choice.features, alone),
        "notes": _notes(arms, written[alone:], choice, config, positive is not None),
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """What was written, scored; the first row is of the model as it is."""

    written: Sequence[Written]
    concept: Float[Tensor, "arms prompts"]
    fluency: Float[Tensor, "arms prompts"]
    score: Float[Tensor, "arms prompts"]

    @classmethod
    def of(cls, written: Sequence[Written], scorer: Scorer, goal: Goal) -> "Judged":
        """Each different text is scored once."""
        every = list(dict.fromkeys(text for one in written for text in one.texts))
        known = dict(zip(every, scorer.of(every).tolist(), strict=True))
        concept = torch.tensor(
            [[known[text] for text in one.texts] for one in written], dtype=torch.float64
        )
        plain = written[0].nats
        fluent = torch.stack([fluency(one.nats, plain, one.repetition) for one in written])
        return cls(
            written=written,
            concept=concept,
            fluency=fluent,
            score=score(wanted(concept, goal), fluent),
        )

    def record(self, i: int) -> dict[str, Any]:
        """The numbers and the texts of one row."""
        one = self.written[i]
        return {
            "concept": _of_those_told(self.concept[i]),
            "perplexity": _perplexity(one.nats),
            "repetition": mean_of(one.repetition),
            "kl": mean_of(one.kl),
            "fluency": mean_of(self.fluency[i]),
            "score": mean_of(self.score[i]),
            "by_prompt": [None if isnan(c) else rounded(c) for c in self.concept[i].tolist()],
            "texts": list(one.texts),
        }


def _of_those_told(concept: Float[Tensor, " prompts"]) -> dict[str, Any]:
    """The mean over the texts of which a scorer says anything."""
    told = concept[~concept.isnan()]
    return mean_of(told) if len(told) else {"value": None, "interval": None}


def _perplexity(nats: Float[Tensor, " prompts"]) -> dict[str, Any]:
    """exp of the mean over prompts of nats per token; None where nothing was written."""
    there = nats[~nats.isnan()]
    if not len(there):
        return {"value": None, "interval": None}
    draws = (resamples(len(there)) @ there).exp()
    return figure(float(there.mean().exp()), interval(draws))


def _arm(arm: Arm, labels: Mapping[Node, str]) -> dict[str, Any]:
    direction = arm.direction
    return {
        "method": direction.method,
        "direction": direction.name,
        "of": None if direction.of is None else key_of(direction.of),
        "label": labels.get(direction.node),
        "groups": list(arm.groups),
        "strength": arm.strength,
        "alpha": rounded(arm.strength * direction.unit),
        "norm": rounded(abs(arm.strength) * direction.norm),
    }


def _feature(one: Chosen, choice: Choice, labels: Mapping[Node, str]) -> dict[str, Any]:
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


def _methods(
    arms: Sequence[Arm], judged: Judged, config: SteerConfig, alone: int
) -> list[dict[str, Any]]:
    """Each method at its best strength, chosen on other prompts than it is judged on."""
    members: dict[str, list[int]] = {"plain": [0]}
    if config.instruction:
        members["instruction"] = [1]
    for i, arm in enumerate(arms):
        for group in arm.groups:
            members.setdefault(group, []).append(alone + i)
    found = []
    for group, rows in members.items():
        best = chosen(judged.score[rows])
        at = torch.tensor(rows)[list(best.arm_of)]
        prompts = torch.arange(len(at))
        found.append(
            {
                "group": group,
                "name": GROUPS[group],
                "score": mean_of(best.score),
                "concept": _of_those_told(judged.concept[at, prompts]),
                "fluency": mean_of(judged.fluency[at, prompts]),
                "tried": len(rows),
                "chosen": [
                    {"direction": arms[rows[i] - alone].direction.name,
                     "strength": arms[rows[i] - alone].strength}
                    for i in dict.fromkeys(best.arms) if rows[i] >= alone
                ],
            }
        )  # fmt: skip
    return sorted(found, key=lambda one: -one["score"]["value"])


def _selection(
    arms: Sequence[Arm], judged: Judged, features: Sequence[Chosen], alone: int
) -> dict[str, Any] | None:
    """The mean over features chosen either way, each at its own best strength, and their ratio.

    None where only one way chose.
    """
    sums: dict[str, Tensor] = {}
    for way in ("output", "activation"):
        own = [one.node for one in features if way in one.by]
        rows = [
            [alone + i for i, arm in enumerate(arms)
             if arm.direction.node == node and way in arm.groups]
            for node in own
        ]  # fmt: skip
        if not rows:
            return None
        sums[way] = torch.stack([chosen(judged.score[of]).score for of in rows]).mean(0)
    share = ratio(sums["output"], sums["activation"])
    ends = ratio_interval(sums["output"], sums["activation"])
    return {
        "output": mean_of(sums["output"]),
        "activation": mean_of(sums["activation"]),
        "ratio": None if share is None else figure(share, ends),
        "shared": sum(len(one.by) > 1 for one in features),
    }


def _notes(
    arms: Sequence[Arm],
    written: Sequence[Written],
    choice: Choice,
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

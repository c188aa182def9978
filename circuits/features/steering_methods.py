"""What a sweep compares: each method at its best, and prompt by prompt against what is simple.

Methods are compared on the same prompts, so the interval of a difference is that of the mean of the
prompts' own differences, prompts drawn again:

    difference = mean over prompts of (score of a method - score of the best simple method)

Simple are an instruction, the difference of means and no steering. The best of them is the one with
the best mean on these prompts, which favours it: it is chosen on what it is judged on.

Source: paired bootstrap, Efron & Tibshirani 1993, An Introduction to the Bootstrap, ch. 13.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.edits.figures import figure, mean_of
from circuits.edits.steered import Continuations
from circuits.features.steering_arms import Arm
from circuits.features.steering_choice import SteeringFeature
from circuits.graph import rounded
from saes.evaluation.bootstrap import interval, ratio, ratio_interval, resamples
from saes.scope.steering import ENCODER, MEANS, RANDOM
from saes.scope.steering_score import Goal, chosen, fluency, score, wanted
from saes.scope.text_scores import Scorer

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
SIMPLE = ("instruction", MEANS, "plain")
"Groups that take no dictionary."


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredContinuations:
    """What was written, scored; the first row is of the model as it is."""

    written: Sequence[Continuations]
    concept: Float[Tensor, "arms prompts"]
    fluency: Float[Tensor, "arms prompts"]
    score: Float[Tensor, "arms prompts"]

    @classmethod
    def of(
        cls, written: Sequence[Continuations], scorer: Scorer, goal: Goal
    ) -> "ScoredContinuations":
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
            "kl": _of_those_told(one.kl),
            "fluency": mean_of(self.fluency[i]),
            "score": mean_of(self.score[i]),
            "by_prompt": _each(self.concept[i]),
            "fluency_by_prompt": _each(self.fluency[i]),
            "texts": list(one.texts),
        }


def _each(values: Float[Tensor, " prompts"]) -> list[float | None]:
    """As a record holds them; None where nothing is told."""
    return [None if isnan(value) else rounded(value) for value in values.tolist()]


def _of_those_told(values: Float[Tensor, " prompts"]) -> dict[str, Any]:
    """The mean over the texts of which anything is told."""
    told = values[~values.isnan()]
    return mean_of(told) if len(told) else {"value": None, "interval": None}


def _perplexity(nats: Float[Tensor, " prompts"]) -> dict[str, Any]:
    """exp of the mean over prompts of nats per token; None where nothing was written."""
    there = nats[~nats.isnan()]
    if not len(there):
        return {"value": None, "interval": None}
    draws = (resamples(len(there)) @ there).exp()
    return figure(float(there.mean().exp()), interval(draws))


def methods_of(
    arms: Sequence[Arm], judged: ScoredContinuations, *, told: bool, alone: int
) -> tuple[list[dict[str, Any]], str]:
    """Each method at its best strength, chosen on other prompts than it is judged on.

    And the group of the best simple one, from which the others' `difference` is; its own is None.
    Arms are the rows from `alone` on; row 1 is of an instruction where the model was `told` one.
    """
    members: dict[str, list[int]] = {"plain": [0]}
    if told:
        members["instruction"] = [1]
    for i, arm in enumerate(arms):
        for group in arm.groups:
            members.setdefault(group, []).append(alone + i)
    best = {group: chosen(judged.score[rows]) for group, rows in members.items()}
    simple = max(
        (group for group in SIMPLE if group in best), key=lambda group: best[group].score.mean()
    )
    found = []
    for group, rows in members.items():
        own = best[group]
        steered = [arms[rows[i] - alone] for i in dict.fromkeys(own.arms) if rows[i] >= alone]
        at = torch.tensor(rows)[list(own.arm_of)], torch.arange(len(own.arm_of))
        found.append(
            {
                "group": group,
                "name": GROUPS[group],
                "score": mean_of(own.score),
                "difference": None if group == simple else mean_of(own.score - best[simple].score),
                "concept": _of_those_told(judged.concept[at]),
                "fluency": mean_of(judged.fluency[at]),
                "tried": len(rows),
                "chosen": [
                    {"direction": arm.direction.name, "strength": arm.strength} for arm in steered
                ],
                "score_by_prompt": _each(own.score),
                "by_prompt": _each(judged.concept[at]),
                "fluency_by_prompt": _each(judged.fluency[at]),
            }
        )
    return sorted(found, key=lambda one: -one["score"]["value"]), simple


def selection_of(
    arms: Sequence[Arm],
    judged: ScoredContinuations,
    features: Sequence[SteeringFeature],
    alone: int,
) -> dict[str, Any] | None:
    """The mean over features chosen either way, each at its own best strength, and both compared.

        ratio       output / activation, None where the latter is 0
        difference  output - activation, prompt by prompt

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
        "difference": mean_of(sums["output"] - sums["activation"]),
        "shared": sum(len(one.by) > 1 for one in features),
    }

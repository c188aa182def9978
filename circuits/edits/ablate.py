"""Run the prompts with and without an edit, and say what changed beside what chance would do."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablation.faithfulness import baseline_of, metrics_with
from circuits.analysis import Analysis
from circuits.attribution.state import BatchState, each
from circuits.baseline_values import BaselineValue
from circuits.discovery.ranking import Ranking
from circuits.edits.ablation import Ablation, check_positions
from circuits.edits.control_nodes import control_nodes
from circuits.graph import Node, rounded
from circuits.metrics.answers import preference_of
from circuits.metrics.metric import on_clean
from circuits.prompts import Prompt
from saes.intervention import touched

SCHEMA = "ablation/1"
Outcome = Float[Tensor, "2 prompts"]
"The metric of each prompt, and the logit difference that says whether the answer is preferred."


def ablate(
    analysis: Analysis, edit: Ablation, ranking: Ranking, *, seed: int = 0
) -> dict[str, Any]:
    """Run the prompts with and without the edit; the record of `result.json`.

    `ranking` is that of `discover`. Controls ablate as many other nodes
    (`circuits.edits.control_nodes`); for an edit that keeps nodes, they keep as many others.
    `seed` draws them.
    """
    prompts, preference = analysis.prompts, preference_of(analysis.prompts)
    if edit.to == "patch" and prompts.patch is None:
        raise ValueError("the prompts have no patch to ablate to: use --to zero or mean")
    check_positions(edit, analysis.n_positions)
    # Whatever the reference was when the graph was found, here nodes are set to what the edit says.
    reference: BaselineValue = "zero" if prompts.patch is None else "patch"
    analysis = replace(analysis, config=replace(analysis.config, reference=reference))
    analysis = analysis.at(touched(analysis.suite, edit.kept_set().complement()))
    by_preference = replace(analysis, metric=preference, edited=analysis.states)

    def on_both(state: BatchState) -> Outcome:
        metrics = analysis.metric, preference
        return torch.stack([on_clean(m, state.logits, state.rows).double() for m in metrics])

    before = torch.cat(each(analysis.states, on_both), 1)
    spared = _spared(analysis, edit)

    draws_of = control_nodes(edit, ranking, analysis.states, seed=seed)
    drawn = [edit.with_nodes(nodes) for draws in draws_of.values() for nodes in draws]
    # All in one go through the prompts: each batch of them is decomposed once.
    kept = [some.kept_set() for some in (edit, *drawn)]
    values = preferred = metrics_with(analysis, kept, edit.to)
    if analysis.config.metric != "logit-difference":
        preferred = metrics_with(by_preference, kept, edit.to)
    outcomes = iter(torch.stack([values, preferred], 1))
    after = next(outcomes)
    controls = [_control(name, [next(outcomes) for _ in draws]) for name, draws in draws_of.items()]
    return {
        "schema": SCHEMA,
        "features": [str(node) for node in edit.ablated],
        "kept": None if edit.kept is None else [str(node) for node in edit.inner],
        "to": edit.to,
        "spared": spared,
        **_summary("before", before),
        **_summary("after", after),
        "controls": controls,
        "prompts": [
            _one_prompt(prompt, *metrics)
            for prompt, *metrics in zip(
                prompts.prompts, before[0].tolist(), after[0].tolist(), strict=True
            )
        ],
    }


def _one_prompt(prompt: Prompt, before: float, after: float) -> dict[str, Any]:
    return {
        "clean": prompt.clean,
        "answer": prompt.answer[0],
        "wrong": prompt.wrong[0] if prompt.wrong else None,
        "before": rounded(before),
        "after": rounded(after),
    }


def _spared(analysis: Analysis, edit: Ablation) -> int:
    """How many tokens of the ablated nodes are norm outliers that stay; not all may be."""
    suite, means = analysis.suite, analysis.means if edit.to == "mean" else None
    spared = named = 0
    whole = tuple(Node(str(site), "error") for site in suite.writes)
    nodes = edit.ablated if edit.kept is None else whole

    def count(state: BatchState) -> None:
        nonlocal spared, named
        stays = baseline_of(suite, state, edit.to, means).spared
        for node in nodes:
            at = slice(None)
            if node.position is not None:
                at = slice(node.position, node.position + 1)
            named += int(state.clean.mask[:, at].sum())
            if node.site in stays:
                spared += int(stays[node.site].tokens(state.values, None)[:, at].sum())

    each(analysis.states, count)
    if named and spared == named:
        raise ValueError(
            f"nothing would be ablated: {', '.join(map(str, nodes))} stand only on norm "
            f"outliers, which stay as they are when nodes go to {edit.to}; use --to patch"
        )
    return spared


def _summary(when: str, values: Outcome) -> dict[str, float | None]:
    metric, preference = values
    return {
        when: rounded(float(metric.mean())),
        f"accuracy_{when}": rounded(float((preference > 0).double().mean())),
    }


def _control(name: str, draws: Sequence[Outcome]) -> dict[str, Any]:
    return {"name": name, **_summary("after", torch.cat(list(draws), 1))}

"""Run the prompts with and without an edit, and say what changed beside what chance would do."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.faithfulness import ablation_means, baseline_of, metric_with
from circuits.attribution.means import Means
from circuits.attribution.state import BatchState, States, batches
from circuits.discovery.ranking import DiscoverConfig, Ranking
from circuits.edits.control_nodes import control_nodes
from circuits.edits.edit import Edit, check_positions
from circuits.graph import Node, rounded
from circuits.metrics.answers import metric_of, preference_of
from circuits.metrics.metric import on_clean
from circuits.prompts import EncodedPrompts, Prompt
from saes.suite import Suite

SCHEMA = "ablation/1"
Outcome = Float[Tensor, "2 prompts"]
"The metric of each prompt, and the logit difference that says whether the answer is preferred."


def ablate(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    edit: Edit,
    ranking: Ranking,
    *,
    config: DiscoverConfig,
    seed: int = 0,
) -> dict[str, Any]:
    """Run the prompts with and without the edit; the record of `result.json`.

    Controls ablate as many other nodes (`circuits.edits.control_nodes`); for an edit that keeps
    nodes, they keep as many others. `seed` draws them.
    """
    if edit.to == "patch" and prompts.patch is None:
        raise ValueError("the prompts have no patch to ablate to: use --to zero or mean")
    suite = suite.fitting(model)
    metric = metric_of(config.metric, model, prompts, suite, positions=config.positions)
    preference = preference_of(prompts)
    options = {"positions": config.positions, "batch_size": config.batch_size}
    means = ablation_means(model, suite, prompts, **options) if edit.to == "mean" else None
    states = _states(model, suite, prompts, config)
    n_positions = prompts.n_positions(config.positions)
    check_positions(edit, n_positions)
    before = torch.stack(
        [
            torch.cat([on_clean(m, s.logits, s.rows).double() for s in states])
            for m in (metric, preference)
        ]
    )
    spared = _spared(suite, states, edit, means)

    def run(some: Edit) -> Outcome:
        kept = some.kept_set()
        found = metric_with(model, suite, states, metric, kept, edit.to, means)
        if config.metric == "logit-difference":
            return torch.stack([found, found])
        preferred = metric_with(model, suite, states, preference, kept, edit.to, means)
        return torch.stack([found, preferred])

    after = run(edit)
    controls = [
        _control(name, [run(edit.with_nodes(nodes)) for nodes in draws])
        for name, draws in control_nodes(edit, ranking, states, seed=seed).items()
    ]
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


def _spared(suite: Suite, states: Sequence[BatchState], edit: Edit, means: Means | None) -> int:
    """How many tokens of the ablated nodes are norm outliers that stay; not all may be."""
    spared = named = 0
    whole = tuple(Node(str(site), "error") for site in suite.writes)
    nodes = edit.ablated if edit.kept is None else whole
    for state in states:
        stays = baseline_of(suite, edit.to, means=means, state=state).spared
        for node in nodes:
            at = slice(None)
            if node.position is not None:
                at = slice(node.position, node.position + 1)
            named += int(state.clean.mask[:, at].sum())
            if node.site in stays:
                spared += int(stays[node.site].tokens(state.values, None)[:, at].sum())
    if named and spared == named:
        raise ValueError(
            f"nothing would be ablated: {', '.join(map(str, nodes))} stand only on norm "
            f"outliers, which stay as they are when nodes go to {edit.to}; use --to patch"
        )
    return spared


def _states(
    model: TransformerBridge, suite: Suite, prompts: EncodedPrompts, config: DiscoverConfig
) -> States:
    reference = "patch" if prompts.patch is not None else "zero"
    return batches(model, suite, prompts, reference=reference, batch_size=config.batch_size)


def _summary(when: str, values: Outcome) -> dict[str, float | None]:
    metric, preference = values
    return {
        when: rounded(float(metric.mean())),
        f"accuracy_{when}": rounded(float((preference > 0).double().mean())),
    }


def _control(name: str, draws: Sequence[Outcome]) -> dict[str, Any]:
    return {"name": name, **_summary("after", torch.cat(list(draws), 1))}

"""What groups of nodes do together: the exact effect of moving all of a group's nodes at once."""

from collections.abc import Callable, Sequence
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablation.faithfulness import metrics_with
from circuits.analysis import Analysis
from circuits.attribution.state import each
from circuits.graph import Node, rounded
from circuits.metrics.metric import on_clean
from saes.evaluation.bootstrap import interval, resamples
from saes.nodes import NodeSet


def joint_effects(
    analysis: Analysis,
    groups: Sequence[Sequence[Node]],
    *,
    report: Callable[[int], None] = lambda done: None,
) -> Float[Tensor, "groups prompts"]:
    """m(run with all nodes of a group at their reference) - m(clean), for each group and prompt.

    As `exact_effects` has it for one node: a node that would react to another of its group stays
    at its reference. `report` is called with the groups done since, batch after batch of prompts.
    """
    if not groups:
        return torch.zeros(0, len(analysis.prompts), dtype=torch.float64)
    metric, kept = analysis.metric, [NodeSet.of(group).complement() for group in groups]
    clean = each(analysis.states, lambda state: on_clean(metric, state.logits, state.rows).double())
    to, means = analysis.config.reference, analysis.reference_means
    changed = metrics_with(analysis, kept, to, means=means, report=report)
    return changed - torch.cat(clean).cpu()


def group_scores(
    graph: nx.DiGraph,
    groups: Sequence[Sequence[Node]],
    effects: Float[Tensor, "groups prompts"],
) -> list[dict[str, Any]]:
    """For each group its joint effect with a 95 % interval, and the sum of its members' effects.

    `graph` has the members' exact effects. Units of the metric; sign as in `graph.json`.
    """
    shares = resamples(effects.shape[1])
    rows = zip(groups, effects, effects @ shares.T, strict=True)
    return [_score(graph, group, row, draws) for group, row, draws in rows]


def _score(
    graph: nx.DiGraph, members: Sequence[Node], effects: Tensor, draws: Tensor
) -> dict[str, Any]:
    ends = interval(draws)
    return {
        "members": [str(node) for node in members],
        "effect": rounded(float(effects.mean())),
        "interval": None if ends is None else [rounded(end) for end in ends],
        "sum": rounded(sum(graph.nodes[node]["exact"] for node in members)),
    }

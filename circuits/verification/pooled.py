"""Nodes to hold an estimator against that it did not choose itself.

Nodes that an estimator puts first are those where it errs upwards, so agreement on them says
little of the rest. The pool is the same whichever estimator found the circuit: the strongest by
one gradient at the clean run, the strongest along the path to the reference, and as many more
drawn at random from all that change between clean and patch.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import Ranking, rank_nodes
from circuits.graph import Node, rounded
from circuits.verification.estimator_agreement import agreement
from hooked_qwen.progress import Report

LISTED = 20
"Strong nodes outside the graph that are listed."


def pooled_nodes(
    analysis: Analysis, ranking: Ranking, *, size: int, seed: int, report: Report
) -> list[Node]:
    """`size` nodes by each way of choosing, fewer where they coincide; no tokens."""
    chosen: dict[Node, None] = {}
    for estimator in judges(analysis.config):
        found, _ = rank_nodes(
            analysis.asked(replace(analysis.config, estimator=estimator)),
            report=lambda what, done, total, note="", e=estimator: report(
                f"pool: {what} by {e}", done, total, note
            ),
        )
        chosen |= dict.fromkeys(found.inner()[:size].nodes())
    # In an order that no estimator has a part in.
    changed = ranking.inner()
    order = changed.key.argsort().tolist()
    drawn = random.Random(seed).sample(order, min(size, len(order)))
    return list(chosen | dict.fromkeys(changed[drawn].nodes()))


def judges(config: DiscoverConfig) -> list[str]:
    """Estimators of both kinds that are cheap and that this metric and reference allow."""
    along = "ig-inputs" if config.reference == "patch" else "ig"
    return [along] if config.metric == "kl" else ["patching", along]


def pool_agreement(
    nodes: Sequence[Node],
    estimates: Float[Tensor, "nodes prompts"],
    exact: Float[Tensor, "nodes prompts"],
    *,
    kept: dict[Node, float],
    ranking: Ranking,
    asked: int,
) -> dict[str, Any]:
    """Agreement on the pool, and its strong nodes that are not in the graph.

    `kept` are the graph's nodes with their exact effects. Strong is a node whose exact effect is
    larger than that of half of them. It is missing by its `estimate`, where that did not put it
    among the `asked` first, else by the `rule` that chose among those: a path, a threshold.
    """
    sizes = torch.tensor([abs(effect) for effect in kept.values()], dtype=torch.float64)
    least = float(sizes.median()) if len(sizes) else 0.0
    inner = ranking.inner()
    means = zip(nodes, estimates.mean(1).tolist(), exact.mean(1).tolist(), strict=True)
    missed = sorted(
        (row for row in means if row[0] not in kept and abs(row[2]) > least),
        key=lambda row: (-abs(row[2]), str(row[0])),
    )
    return {
        "n": len(nodes),
        **agreement(estimates, exact),
        "missed_in_all": len(missed),
        "missed": [
            {
                "id": str(node),
                "estimate": rounded(estimate),
                "exact": rounded(effect),
                "rank": place + 1,
                "by": "estimate" if place >= asked else "rule",
            }
            for node, estimate, effect in missed[:LISTED]
            for place in [inner.place_of(node)]
        ],
    }

"""The exact oracle of nodes: run the model with each of them at its reference value.

A node is set in the clean run, on its own, from its clean to its reference value, and everything
downstream reacts.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.deltas import Deltas, by_name, node_deltas
from circuits.attribution.forward import metric_with_deltas
from circuits.attribution.state import BatchState
from circuits.metrics.metric import Metric, counts, on_clean
from hooked_qwen.nodes import Node

ROWS_AT_ONCE = 256
TOKENS_AT_ONCE = 4096


@torch.no_grad()
def exact_effects(
    analysis: Analysis,
    state: BatchState,
    nodes: Sequence[Node],
    *,
    report: Callable[[int], None] | None = None,
) -> Float[Tensor, "nodes batch"]:
    """m(run with the node at its reference) - m(clean), for each node and each prompt.

    Pairs in which the node does not move are zero without a run. The forward pass starts at the
    node's layer: nothing earlier can change. `report` is called with the nodes done since.
    """
    metric = analysis.metric
    clean = on_clean(metric, state.logits, state.rows)
    effects = clean.new_zeros(len(nodes), len(state.rows), dtype=torch.float64)
    size = max(1, 4 * rows_at_once(state) // len(state.rows))
    for members, alike in by_name(nodes):
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            deltas = node_deltas(analysis.suite, state, some)
            positions = [node.position for node in some if node.position is not None]
            start_at = min(positions) if len(positions) == len(some) else None
            which, prompt = _changed(metric, deltas, state).nonzero(as_tuple=True)
            to = torch.tensor(members[start : start + size], device=clean.device)
            for first in range(0, len(which), rows_at_once(state)):
                part = slice(first, first + rows_at_once(state))
                row, index = which[part], prompt[part]
                changes = {site: delta[row, index] for site, delta in deltas.items()}
                value = metric_with_deltas(analysis, state, changes, index, start=start_at)
                effects[to[row], index] = (value - clean[index]).double()
            if report is not None:
                report(len(some))
    return effects.cpu()


def _changed(metric: Metric, deltas: Deltas, state: BatchState) -> Bool[Tensor, "nodes batch"]:
    """Where a node's clean and reference values differ and the metric can depend on it."""
    parts = [counts(metric, site, delta, state.rows) for site, delta in deltas.items()]
    return torch.stack(parts).any(0)


def rows_at_once(state: BatchState) -> int:
    """Rows of one forward pass."""
    return max(1, min(ROWS_AT_ONCE, TOKENS_AT_ONCE // state.n_positions))

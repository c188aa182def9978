"""Faithfulness over circuits of growing size, beside every control.

Each row is one way to choose nodes. `circuit` takes the strongest by the estimator; rows without
errors leave out those of attention and MLPs, or all. Controls are random nodes and features of
the same number, and other bases of the same tensors, ranked by the same estimator: their
coordinates ("neurons"), those with the neurons inside the MLPs in place of the MLPs' outputs, the
dictionaries' features beside these, and dictionaries that were never trained.

    CPR = area under faithfulness      CMD = area of |1 - faithfulness|

over the share of the nodes that are kept, from none (faithfulness 0) to all.

Source: Marks et al. 2024, arXiv:2403.19647; CPR and CMD of MIB, Mueller et al. 2025,
arXiv:2504.13151.
Differs: CPR and CMD are taken over the share of nodes, where MIB counts edges.
"""

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablation.faithfulness import (
    FaithfulnessCurve,
    FullAndEmpty,
    Measured,
    curve,
    full_and_empty,
    mean_curve,
    metrics_with,
)
from circuits.analysis import Analysis
from circuits.attribution.node_effects import NodeEffects
from circuits.baseline_values import BaselineValue
from circuits.discovery.ranking import Ranking, rank_nodes
from circuits.graph import Node, rounded
from hooked_qwen.hook_points import has_neurons
from hooked_qwen.progress import Report, counting, silent
from saes.evaluation.baselines import (
    features_and_neurons_inside_mlps,
    neurons,
    neurons_inside_mlps,
    untrained,
)
from saes.evaluation.bootstrap import interval
from saes.nodes import NodeSet
from saes.suite import Suite

HEADLINE = 100
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
QUICK_SIZES = (10, 100)
MOST_NEEDED = 30
"Nodes of the graph that are taken away one at a time."
QUICK_ROWS = ("circuit", "circuit without errors", "random nodes, same sites", "random nodes")
RANKED_ROWS: tuple[str, ...] = (
    "circuit",
    "circuit, no attn or mlp errors",
    "circuit without errors",
)
RANDOM_ROWS: tuple[str, ...] = ("random nodes, same sites", "random nodes", "random features")
HELD_OUT_ROWS = ("circuit", "circuit without errors", "random nodes")
CircuitPlan = Callable[[int, int], NodeSet]
"The circuit of a size, of the draw of a number."
Pool = Callable[[], NodeEffects]
"The nodes that circuits are chosen from, strongest first."
Level = Literal["full", "quick"]
"Every size and control, or `QUICK_SIZES` and all nodes of `QUICK_ROWS`, with no other basis."


@dataclass(frozen=True)
class Scale:
    """One analysis, with everything kept and with everything ablated."""

    analysis: Analysis
    to: BaselineValue
    "what nodes are ablated to"
    full_and_empty: FullAndEmpty

    @classmethod
    def of(cls, analysis: Analysis, to: BaselineValue) -> "Scale":
        """Measure the metric with everything kept and with everything ablated."""
        return cls(analysis, to, full_and_empty(analysis, to))

    def curve(
        self,
        circuits: Sequence[NodeSet],
        *,
        complete: bool = False,
        report: Callable[[int], None] = lambda done: None,
    ) -> FaithfulnessCurve:
        """Faithfulness of each of `circuits`; what is left without them, where `complete`.

        `report` is as that of `metrics_with`.
        """
        return curve(
            self.analysis,
            circuits,
            self.full_and_empty,
            to=self.to,
            complete=complete,
            report=report,
        )

    def faithfulness(
        self,
        circuits: Sequence[NodeSet],
        *,
        report: Callable[[int], None] = lambda done: None,
    ) -> Measured:
        """Faithfulness of each of `circuits`; `report` is as that of `metrics_with`."""
        values = metrics_with(self.analysis, circuits, self.to, report=report)
        return self.full_and_empty.faithfulness(values)


def curves(
    scale: Scale,
    ranking: Ranking,
    *,
    level: Level,
    draws: int,
    seed: int,
    report: Report = silent,
) -> dict[str, Any]:
    """The record of all rows."""
    sizes = sizes_of(ranking.inner(), level)
    plans = _plans(ranking, seed=seed)
    asked = {name: (plans[name], n) for name, n in draws_of(level, draws).items()}
    rows = _planned(scale, asked, sizes, report)
    for name, make in _controls(scale, level).items():
        rows |= _control(scale, name, make(), sizes, report)
    return {
        "baseline": scale.to,
        "full": rounded(float(scale.full_and_empty.full.mean())),
        "empty": rounded(float(scale.full_and_empty.empty.mean())),
        "nodes_that_move": sizes[-1],
        "sizes": sizes,
        "margin": _margin(rows, sizes),
        "areas": {name: areas(row.faithfulness, sizes) for name, row in rows.items()},
        "rows": {name: row.record() for name, row in rows.items()},
    }


def sizes_of(nodes: NodeEffects, level: Level) -> list[int]:
    """How many of the `nodes` each circuit of a row has."""
    asked = QUICK_SIZES if level == "quick" else SIZES
    return [size for size in asked if size < len(nodes)] + [len(nodes)]


def draws_of(level: Level, draws: int) -> dict[str, int]:
    """The rows of a level, and how often the circuits of each are drawn."""
    if level == "quick":
        return dict.fromkeys(QUICK_ROWS, 1)
    return dict.fromkeys(RANKED_ROWS, 1) | dict.fromkeys(RANDOM_ROWS, draws)


def _planned(
    scale: Scale,
    plans: Mapping[str, tuple[CircuitPlan, int]],
    sizes: Sequence[int],
    report: Report,
    what: str = "faithfulness",
) -> dict[str, FaithfulnessCurve]:
    """Each row of `plans`, its draws averaged; completeness too of those that say circuit."""
    complete = {name for name in plans if name.startswith("circuit") and what == "faithfulness"}
    total = len(sizes) * sum(n * (2 if name in complete else 1) for name, (_, n) in plans.items())
    tick = counting(report, what, total * len(scale.analysis.states))

    def row(name: str, plan: CircuitPlan, draws: int) -> FaithfulnessCurve:
        # A draw's circuits are let go before the next are made.
        return mean_curve(
            [
                scale.curve(
                    [plan(size, draw) for size in sizes],
                    complete=name in complete,
                    report=tick,
                )
                for draw in range(draws)
            ]
        )

    return {name: row(name, plan, draws) for name, (plan, draws) in plans.items()}


def _controls(scale: Scale, level: Level) -> dict[str, Callable[[], Suite]]:
    """Other bases of the same tensors, by the name of their row; each made when its turn comes."""
    if level == "quick":
        return {}
    model, suite = scale.analysis.model, scale.analysis.suite
    found: dict[str, Callable[[], Suite]] = {"neurons": partial(neurons, suite)}
    mlps = [site.layer for site in suite.writes if site.kind == "mlp_out"]
    if mlps and has_neurons(model, mlps):
        found["neurons, inside the MLPs"] = partial(neurons_inside_mlps, model, suite)
        if len(mlps) < len(suite.writes):
            mixed = partial(features_and_neurons_inside_mlps, model, suite)
            found["features, neurons inside the MLPs"] = mixed
    return found | {"untrained dictionaries": partial(untrained, suite)}


def held_out_curves(
    scale: Scale, ranking: Ranking, *, level: Level, seed: int, report: Report = silent
) -> dict[str, Any]:
    """The same circuits on other prompts, beside random nodes."""
    sizes = sizes_of(ranking.inner(), level)
    plans = _plans(ranking, seed=seed)
    asked = {name: (plans[name], 1) for name in HELD_OUT_ROWS}
    rows = _planned(scale, asked, sizes, report, "held-out prompts")
    return {
        "n_prompts": len(scale.analysis.prompts),
        "full": rounded(float(scale.full_and_empty.full.mean())),
        "empty": rounded(float(scale.full_and_empty.empty.mean())),
        "sizes": sizes,
        "rows": {name: row.record() for name, row in rows.items()},
    }


def what_each_adds(
    scale: Scale, nodes: Sequence[Node], *, level: Level = "full", report: Report = silent
) -> dict[str, Any]:
    """What the circuit of `nodes` loses in faithfulness without each of the first of them."""
    asked = list(nodes[:MOST_NEEDED]) if level == "full" else []
    circuits = [nodes, *([n for n in nodes if n != x] for x in asked)]
    tick = counting(report, "what each adds", len(circuits) * len(scale.analysis.states))
    found = scale.faithfulness([NodeSet.of(c) for c in circuits], report=tick)
    lost, draws = found.values[0] - found.values[1:], found.draws[0] - found.draws[1:]
    return {
        "circuit": len(nodes),
        "faithfulness": rounded(float(found.values[0])),
        "interval": interval(found.draws[0]),
        "nodes": [
            {"id": str(node), "adds": rounded(float(value)), "interval": interval(draw)}
            for node, value, draw in zip(asked, lost, draws, strict=True)
        ],
    }


def areas(faithfulness: Measured, sizes: Sequence[int]) -> dict[str, Any]:
    """CPR and CMD of one row with their 95 % intervals, by the trapezium rule from none to all."""
    share = torch.tensor([0, *sizes], dtype=torch.float64) / sizes[-1]

    def both(f: Float[Tensor, "sizes ..."]) -> dict[str, Tensor]:
        f = torch.cat([torch.zeros_like(f[:1]), f])
        return {
            "cpr": torch.trapezoid(f, share, dim=0),
            "cmd": torch.trapezoid((1 - f).abs(), share, dim=0),
        }

    values, draws = both(faithfulness.values), both(faithfulness.draws)
    return {name: rounded(float(value)) for name, value in values.items()} | {
        f"{name}_interval": interval(draw) for name, draw in draws.items()
    }


def _margin(rows: dict[str, FaithfulnessCurve], sizes: Sequence[int]) -> dict[str, Any]:
    """By how much the circuit is more faithful than as many random nodes, at about a hundred."""
    at = min(range(len(sizes)), key=lambda i: abs(sizes[i] - HEADLINE))
    circuit, chance = (rows[name].faithfulness for name in ("circuit", "random nodes"))
    return {
        "size": sizes[at],
        "circuit": rounded(float(circuit.values[at])),
        "random nodes": rounded(float(chance.values[at])),
        "difference": rounded(float(circuit.values[at] - chance.values[at])),
        "interval": interval(circuit.draws[at] - chance.draws[at]),
    }


def _plans(ranking: Ranking, *, seed: int) -> dict[str, CircuitPlan]:
    """For each row, how a circuit of it is chosen.

    What it is chosen from is selected when it is asked for: kept, it would be the ranking over
    again, millions of nodes, while the model runs.
    """

    def without_other_errors() -> NodeEffects:
        nodes = ranking.inner()
        return nodes.where((nodes.feature >= 0) | nodes.at_sites("resid"))

    def first(some: Pool) -> CircuitPlan:
        return lambda size, draw: some()[:size].as_set()

    def random_of(some: Pool) -> CircuitPlan:
        return lambda size, draw: _drawn(some(), size, seed + draw).as_set()

    def matched(size: int, draw: int) -> NodeSet:
        return _matched(ranking.inner(), size, seed + draw).as_set()

    return {
        "circuit": first(ranking.inner),
        "circuit, no attn or mlp errors": first(without_other_errors),
        "circuit without errors": first(ranking.features),
        "random nodes, same sites": matched,
        "random nodes": random_of(ranking.inner),
        "random features": random_of(ranking.features),
    }


def _drawn(nodes: NodeEffects, size: int, seed: int) -> NodeEffects:
    if size >= len(nodes):
        return nodes
    return nodes[random.Random(seed).sample(range(len(nodes)), size)]


def _matched(nodes: NodeEffects, size: int, seed: int) -> NodeEffects:
    """Random nodes, as many features and as many errors at each site as the first `size` have."""
    if size >= len(nodes):
        return nodes
    group, generator, chosen = nodes.group, random.Random(seed), []
    for kind, n in Counter(group[:size].tolist()).items():
        pool = (group == kind).nonzero().squeeze(-1)
        chosen.append(pool[generator.sample(range(len(pool)), n)])
    return nodes[torch.cat(chosen)] if chosen else nodes[:0]


def _control(
    scale: Scale, name: str, suite: Suite, sizes: Sequence[int], report: Report
) -> dict[str, FaithfulnessCurve]:
    """Curves of another set of dictionaries at the same places, found the same way.

    Where they have errors a second row leaves those out: dictionaries that explain nothing have
    errors that carry everything.
    """
    here = Scale.of(scale.analysis.by(suite), scale.to)
    ranking, _ = rank_nodes(
        here.analysis,
        report=lambda what, done, total, note="": report(f"{name}: {what}", done, total, note),
    )
    pools: dict[str, Pool] = {name: ranking.inner}
    if len(ranking.features()) < len(ranking.inner()):
        pools[f"{name}, no errors"] = ranking.features
    tick = counting(
        report, f"{name}: faithfulness", len(pools) * len(sizes) * len(here.analysis.states)
    )
    return {
        row: here.curve([pool()[:size].as_set() for size in sizes], report=tick)
        for row, pool in pools.items()
    }

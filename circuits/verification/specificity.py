"""Does cutting another task's circuit of the same size hurt this task as much?

A circuit here is the features of a graph, at every position, the strongest of them: as many of
each. For every task and every circuit

    lost = (m(full) - m(cut)) / (m(full) - m(empty))

m(cut) is the task's mean metric with the circuit ablated, m(full) with nothing ablated, m(empty)
with every node: 0 is a task that does not need the circuit, 1 is one of which nothing is left.
Random features at the same sites, of those that change in any of the tasks, are one more circuit.

Source: the question is that of arXiv:2605.08348, the scale that of Marks et al. 2024,
arXiv:2403.19647 (lost is 1 less the completeness).
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import networkx as nx
from jaxtyping import Float
from torch import Tensor

from circuits.ablation.faithfulness import (
    FullAndEmpty,
    default_to,
    full_and_empty,
    metrics_with,
)
from circuits.analysis import Analysis
from circuits.baseline_values import BaselineValue
from circuits.discovery.ranking import Ranking
from circuits.edits.ablation import Ablation
from circuits.graph import Node, ordered, rounded
from circuits.metrics.readout import metric_name
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.progress import Report, silent
from saes.evaluation.bootstrap import interval

SCHEMA = "specificity/1"
RANDOM = "random features"


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskCircuit:
    """A task with its circuit, as a run found it."""

    analysis: Analysis
    graph: nx.DiGraph
    ranking: Ranking


@dataclass(frozen=True, kw_only=True)
class SpecificityConfig:
    """What is cut, and to what."""

    size: int | None = None
    "features of each circuit; by default as many as the smallest has"
    to: BaselineValue | None = None
    "what cut features are set to; by default as for `verify`"
    draws: int = 3
    "of random circuits"
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(1, self, "size", "draws")


def features_of(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """The features among some nodes, each once, wherever they are."""
    return tuple(dict.fromkeys(n._replace(position=None) for n in nodes if n.kind == "feature"))


def specificity(
    tasks: Mapping[str, TaskCircuit],
    config: SpecificityConfig | None = None,
    *,
    report: Report = silent,
) -> dict[str, Any]:
    """The matrix task x circuit, how much circuits overlap, and what each task's own adds.

    The diagonal is what `ablate` does with the same nodes. Raises `ValueError` for fewer than two
    tasks, for circuits of other dictionaries, and where a graph has fewer features than asked for.
    """
    config = config or SpecificityConfig()
    _check(tasks)
    whole = {name: features_of(ordered(task.graph)) for name, task in tasks.items()}
    size = _size(whole, config.size)
    circuits = {name: nodes[:size] for name, nodes in whole.items()}
    random_ones = _random(tasks, list(circuits.values()), config)
    listed = [*circuits.values(), *random_ones]
    columns: dict[str, _TaskColumn] = {}
    for name, task in tasks.items():
        columns[name] = _lost(task.analysis, listed, config.to)
        report("tasks", len(columns), len(tasks))
    rows = [*circuits, *([RANDOM] if random_ones else [])]
    return {
        "schema": SCHEMA,
        "size": size,
        "draws": len(random_ones),
        "seed": config.seed,
        "tasks": {name: _task_record(name, columns[name], list(circuits)) for name in tasks},
        "circuits": {name: [str(node) for node in nodes] for name, nodes in circuits.items()},
        "rows": rows,
        "lost": [
            [columns[task].cell(i, len(circuits)) for task in tasks] for i in range(len(rows))
        ],
        "overlap": [
            {"circuits": [a, b], "shared": shared, "jaccard": rounded(shared / (2 * size - shared))}
            for a, b in combinations(circuits, 2)
            for shared in [len(set(circuits[a]) & set(circuits[b]))]
        ],
    }


def _check(tasks: Mapping[str, TaskCircuit]) -> None:
    if len(tasks) < 2:
        raise ValueError(f"{len(tasks)} run was given: a circuit is held against those of others")
    first, *others = tasks.items()
    for name, task in others:
        hashes = [t.graph.graph.get("dictionaries") for t in (first[1], task)]
        if hashes[0] != hashes[1]:
            raise ValueError(
                f"{first[0]} and {name} were found with different dictionaries: features of one "
                "are no features of the other"
            )


def _size(whole: Mapping[str, Sequence[Node]], asked: int | None) -> int:
    smallest = min(whole, key=lambda name: len(whole[name]))
    least = len(whole[smallest])
    if not least:
        raise ValueError(f"the graph of {smallest} has no features to cut")
    if asked is not None and asked > least:
        raise ValueError(f"{asked} features were asked for, and {smallest} has {least}")
    return asked or least


def _random(
    tasks: Mapping[str, TaskCircuit], circuits: Sequence[Sequence[Node]], config: SpecificityConfig
) -> list[tuple[Node, ...]]:
    """Random circuits, each at the sites of one of the circuits in turn; none without room."""
    named = {node for nodes in circuits for node in nodes}
    changed = dict.fromkeys(
        n for task in tasks.values() for n in features_of(task.ranking.features().nodes())
    )
    at_site: dict[str, list[Node]] = {}
    for node in sorted(changed, key=str):
        if node not in named:
            at_site.setdefault(node.site, []).append(node)
    found = []
    for draw in range(config.draws):
        rng = random.Random(config.seed * config.draws + draw)
        sites = [node.site for node in circuits[draw % len(circuits)]]
        drawn: list[Node] = []
        for site in dict.fromkeys(sites):
            pool = at_site.get(site, [])
            if len(pool) < sites.count(site):
                return []
            drawn += rng.sample(pool, sites.count(site))
        found.append(tuple(drawn))
    return found


@dataclass(frozen=True, eq=False)
class _TaskColumn:
    """One task under every circuit."""

    metric: str
    to: BaselineValue
    scale: FullAndEmpty
    values: Float[Tensor, "circuits prompts"]
    lost: Float[Tensor, " circuits"]
    draws: Float[Tensor, "circuits draws"]

    def cell(self, row: int, circuits: int) -> dict[str, Any]:
        """Of a circuit, or, in the last row, of the mean of the random ones."""
        at = slice(row, row + 1) if row < circuits else slice(circuits, None)
        return {
            **_with_ends(self.lost[at].mean(), self.draws[at].mean(0)),
            "metric": rounded(float(self.values[at].mean())),
        }


def _lost(
    analysis: Analysis, circuits: Sequence[Sequence[Node]], to: BaselineValue | None
) -> _TaskColumn:
    to = to or default_to(analysis.prompts)
    if to == "patch" and analysis.prompts.patch is None:
        raise ValueError("a task has no patch to cut to: use --to zero or mean")
    # Whatever the reference was when the graph was found, here nodes are set to what is asked for.
    reference: BaselineValue = "zero" if analysis.prompts.patch is None else "patch"
    analysis = replace(analysis, config=replace(analysis.config, reference=reference))
    scale = full_and_empty(analysis, to)
    kept = [Ablation(ablated=tuple(nodes), to=to).kept_set() for nodes in circuits]
    values = metrics_with(analysis, kept, to)
    found = scale.faithfulness(values)
    return _TaskColumn(
        metric_name(analysis.config.metric), to, scale, values, 1 - found.values, 1 - found.draws
    )


def _with_ends(value: Tensor, draws: Tensor) -> dict[str, Any]:
    found = interval(draws)
    return {
        "value": rounded(float(value)),
        "interval": None if found is None else [rounded(end) for end in found],
    }


def _task_record(name: str, column: _TaskColumn, circuits: Sequence[str]) -> dict[str, Any]:
    own = circuits.index(name)
    others = [i for i in range(len(circuits)) if i != own]
    worst = max(others, key=lambda i: float(column.lost[i]))
    lost, draws = column.lost, column.draws
    return {
        "n_prompts": len(column.scale.full),
        "metric": column.metric,
        "to": column.to,
        "full": rounded(float(column.scale.full.mean())),
        "empty": rounded(float(column.scale.empty.mean())),
        "own": _with_ends(lost[own], draws[own]),
        "others": _with_ends(lost[others].mean(), draws[others].mean(0)),
        "worst": {"circuit": circuits[worst], **_with_ends(lost[worst], draws[worst])},
        "own_beyond_others": _with_ends(
            lost[own] - lost[others].mean(), draws[own] - draws[others].mean(0)
        ),
    }

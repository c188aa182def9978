"""Is the circuit found again on other draws of the prompts, and by other estimators?

Prompts are drawn again with replacement. The strongest nodes, as many as the run's graph has, are
chosen anew by the mean of their effects on each draw: effects are known prompt by prompt, so no
model is run for it. On a few draws the graph is found whole, with its rules and its edges. Effects
in a replacement graph are by linear paths, and the other estimators look at the same transcoders.

    Jaccard(A, B) = |A and B| / |A or B|

Source: Jaccard over bootstrap resamples, and 0.8 as what counts as stable, arXiv:2510.00845.
"""

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import networkx as nx
import torch
from jaxtyping import Bool, Float, Int
from scipy import stats
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.effects import node_names
from circuits.attribution.estimators import ESTIMATORS
from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.methods import discover_by_method
from circuits.discovery.ranking import Ranking, rank_nodes
from circuits.discovery.replaced_prompts import by_transcoders
from circuits.graph import Node, ordered, rounded
from circuits.verification.prompt_draws import EffectsOfEach, drawn, drawn_shares, effects_of_each
from circuits.verification.replacement import LINEAR
from hooked_qwen.config_checks import check_at_least
from hooked_qwen.progress import Report, silent
from saes.evaluation.bootstrap import interval

SCHEMA = "stability/1"
THRESHOLD = 0.8
"What arXiv:2510.00845 calls stable."
CHEAP = tuple(name for name, estimator in ESTIMATORS.items() if not estimator.exact)


@dataclass(frozen=True, kw_only=True)
class StabilityConfig:
    """How often prompts are drawn again."""

    resamples: int = 200
    "draws on which nodes are chosen anew"
    reruns: int = 3
    "draws on which the graph is found anew"
    estimators: tuple[str, ...] = CHEAP
    "that the run's is held against; those that its metric or reference does not allow are skipped"
    seed: int = 0

    def __post_init__(self) -> None:
        check_at_least(2, self, "resamples")
        if self.reruns < 0:
            raise ValueError(f"reruns is {self.reruns}: expected 0 or more")
        for name in self.estimators:
            if name not in ESTIMATORS:
                known = ", ".join(ESTIMATORS)
                raise ValueError(f"no estimator is called {name!r}: expected one of {known}")


def stability(
    analysis: Analysis,
    graph: nx.DiGraph,
    ranking: Ranking,
    config: StabilityConfig | None = None,
    *,
    report: Report = silent,
) -> dict[str, Any]:
    """How much of a circuit is found again; the record of `stability.json`.

    `graph` and `ranking` are those of `discover` on this analysis. Raises `ValueError` for a lone
    prompt, which cannot be drawn again, and for a graph without features and errors.
    """
    config = config or StabilityConfig()
    if analysis.config.method == "replacement":
        analysis = by_transcoders(analysis)
    n, size = len(analysis.prompts), _size(graph)
    if n < 2:
        raise ValueError("one prompt alone cannot be drawn again: stability needs several")
    effects = effects_of_each(analysis, report=report)
    weights = drawn_shares(n, config.resamples, seed=config.seed)
    return {
        "schema": SCHEMA,
        "n_prompts": n,
        "size": size,
        "threshold": THRESHOLD,
        "estimator": _estimator(analysis),
        "resamples": config.resamples,
        "seed": config.seed,
        **_nodes(effects, weights, size, graph),
        "reruns": _reruns(analysis, graph, config, report),
        "estimators": _estimators(analysis, ranking, size, config, report),
    }


def _estimator(analysis: Analysis) -> str:
    return LINEAR if analysis.config.method == "replacement" else analysis.config.estimator


def _size(graph: nx.DiGraph) -> int:
    size = sum(node.kind in ("feature", "error") for node in graph)
    if not size:
        raise ValueError("the graph has no features and no errors that could be found again")
    return size


def _nodes(
    effects: EffectsOfEach, shares: Float[Tensor, "draws prompts"], size: int, graph: nx.DiGraph
) -> dict[str, Any]:
    """Sets of the strongest nodes on each draw, against that of all prompts and each other."""
    whole, names = effects.by_prompt.mean(0), effects.nodes
    first = strongest(whole, size)
    chosen = torch.zeros(len(shares), len(names), dtype=torch.bool)
    correlations = []
    for row, share in zip(chosen, shares, strict=True):
        means = share @ effects.by_prompt
        row[strongest(means, size)] = True
        both = row.clone()
        both[first] = True
        correlations.append(rank_correlation(means[both], whole[both]))
    full = torch.zeros(len(names), dtype=torch.bool)
    full[first] = True
    used = chosen.any(0) | full
    found = chosen.sum(0) / len(chosen)
    at = {node: i for i, node in enumerate(names.nodes())}
    inner = [n for n in ordered(graph) if n.kind in ("feature", "error")]
    return {
        "nodes": {
            "jaccard": _spread(jaccard(chosen[:, used], full[None, used])[:, 0]),
            "between_draws": _spread(_pairs(chosen[:, used])),
            "rank_correlation": _spread(torch.tensor(correlations, dtype=torch.float64)),
        },
        "found": [
            {"id": str(node), "share": rounded(float(found[at[node]]))}
            for node in inner
            if node in at
        ],
    }


def strongest(effect: Float[Tensor, " nodes"], size: int) -> Int[Tensor, " chosen"]:
    """The `size` largest by magnitude; equal ones in the order that they stand in."""
    order = effect.abs().sort(descending=True, stable=True).indices
    return order[:size]


def jaccard(a: Bool[Tensor, "a nodes"], b: Bool[Tensor, "b nodes"]) -> Float[Tensor, "a b"]:
    """Of each set with each; 1 where both are empty."""
    shared = a.double() @ b.double().T
    either = a.sum(1)[:, None] + b.sum(1)[None] - shared
    return torch.where(either > 0, shared / either.clamp(min=1), 1.0)


def _pairs(chosen: Bool[Tensor, "draws nodes"]) -> Float[Tensor, " pairs"]:
    both = jaccard(chosen, chosen)
    i, j = torch.triu_indices(len(both), len(both), offset=1)
    return both[i, j]


def rank_correlation(a: Float[Tensor, " nodes"], b: Float[Tensor, " nodes"]) -> float:
    """Spearman's, of effects with their signs; NaN for fewer than three nodes."""
    if len(a) < 3:
        return float("nan")
    found: Any = stats.spearmanr(a.numpy(), b.numpy())
    return float(found.statistic)


def _spread(values: Float[Tensor, " draws"]) -> dict[str, Any]:
    """The mean over draws, and where 95 % of them lie."""
    values = values[values.isfinite()].double()
    if not len(values):
        return {"value": None, "interval": None}
    ends = interval(values) if len(values) > 1 else None
    return {
        "value": rounded(float(values.mean())),
        "interval": None if ends is None else [rounded(end) for end in ends],
    }


def _reruns(
    analysis: Analysis, graph: nx.DiGraph, config: StabilityConfig, report: Report
) -> dict[str, Any]:
    """The graph found anew on a few draws: its nodes and its edges against the run's."""
    generator = torch.Generator().manual_seed(config.seed + 1)
    nodes, edges = [], []
    for done in range(config.reruns):
        report("graphs on draws", done, config.reruns)
        rows = torch.randint(len(analysis.prompts), (len(analysis.prompts),), generator=generator)
        other = discover_by_method(analysis.on(drawn(analysis.prompts, rows))).graph
        nodes.append(_jaccard(_inner(graph), _inner(other)))
        edges.append(_jaccard(_edges(graph), _edges(other)))
    if config.reruns:
        report("graphs on draws", config.reruns, config.reruns)
    of_each = torch.tensor([nodes, edges], dtype=torch.float64)
    return {
        "n": config.reruns,
        "nodes": {**_spread(of_each[0]), "draws": [rounded(v) for v in nodes]},
        "edges": {**_spread(of_each[1]), "draws": [rounded(v) for v in edges]},
    }


def _inner(graph: nx.DiGraph) -> set[Node]:
    return {node for node in graph if node.kind in ("feature", "error")}


def _edges(graph: nx.DiGraph) -> set[tuple[Node, ...]]:
    """Edges, those to the output by one name: it is called after the answers."""

    def name(node: Node) -> Node:
        return Node("logit", "logit") if node.kind == "logit" else node

    return {(name(a), name(b)) for a, b in graph.edges}


def _jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b) if a | b else 1.0


def _estimators(
    analysis: Analysis, ranking: Ranking, size: int, config: StabilityConfig, report: Report
) -> dict[str, Any]:
    """The strongest nodes by each estimator against those of each other."""
    rankings, skipped = {_estimator(analysis): _same_nodes(analysis, ranking)}, {}
    for name in config.estimators:
        if name in rankings:
            continue
        try:
            asked = analysis.asked(_by(analysis.config, name, size))
        except ValueError as error:
            skipped[name] = str(error)
            continue
        rankings[name] = rank_nodes(
            asked, report=lambda what, done, total, note="", e=name: report(
                f"{what} by {e}", done, total, note
            ),
        )[0].inner()  # fmt: skip
    pairs = []
    for a, b in combinations(rankings, 2):
        tops = [rankings[name][: min(size, len(rankings[name]))] for name in (a, b)]
        effects = [dict(zip(r.key.tolist(), r.effect.tolist(), strict=True)) for r in
                   (rankings[a], rankings[b])]  # fmt: skip
        sets = [set(top.key.tolist()) for top in tops]
        both = sorted(sets[0] | sets[1])
        values = [torch.tensor([e.get(k, 0.0) for k in both], dtype=torch.float64) for e in effects]
        correlation = rank_correlation(values[0], values[1])
        pairs.append(
            {
                "estimators": [a, b],
                "jaccard": rounded(_jaccard(*sets)),
                "rank_correlation": rounded(correlation) if correlation == correlation else None,
            }
        )
    return {"pairs": pairs, "skipped": skipped}


def _by(config: DiscoverConfig, estimator: str, size: int) -> DiscoverConfig:
    """The configuration with another estimator, which are of sparse feature graphs."""
    if config.method == "sparse-feature":
        return replace(config, estimator=estimator)
    return replace(config, method="sparse-feature", estimator=estimator, nodes=size, paths=None)


def _same_nodes(analysis: Analysis, ranking: Ranking) -> Ranking:
    """The nodes that other estimators have too, named as they name them.

    In a replacement graph layers without a transcoder have errors, and in no other.
    """
    if analysis.config.method == "sparse-feature":
        return ranking.inner()
    names = node_names(analysis.suite)
    return NodeEffects.listed(names, [(n, e) for n, e in ranking.inner() if n.site in names])

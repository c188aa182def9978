"""Hold a discovered graph against ablation: its nodes, its edges, and the circuit as a set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.faithfulness import default_to
from circuits.ablation.path_patching import exact_edges
from circuits.analysis import Analysis
from circuits.attribution.effects import effects_by_prompt
from circuits.attribution.estimators import ESTIMATORS
from circuits.attribution.state import BatchState, each
from circuits.baseline_values import BaselineValue
from circuits.discovery.ranking import Ranking
from circuits.graph import Edge, Node, ordered
from circuits.metrics.readout import metric_name
from circuits.prompts import EncodedPrompts
from circuits.verification.estimator_agreement import (
    edge_agreement,
    edges_to_measure,
    node_agreement,
)
from circuits.verification.faithfulness_curves import (
    Level,
    Scale,
    curves,
    held_out_curves,
    what_each_adds,
)
from circuits.verification.group_effects import group_scores, joint_effects
from circuits.verification.pooled import pool_agreement, pooled_nodes
from circuits.verification.replacement import LINEAR, agreements, cut_of, measure, scores
from hooked_qwen.progress import Report, counting, silent
from transcoders.interventions import THE_MODEL

SCHEMA = "verification/1"


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What ablated nodes are set to, and how much is measured."""

    to: BaselineValue | None = None
    "by default that of `default_to`"
    level: Level = "full"
    "`quick` measures the graph's nodes and edges, and the circuit at three sizes"
    draws: int = 3
    "random circuits averaged in each random control"
    pool: int = 50
    "nodes by each way of choosing that agreement is also measured on (see `pooled_nodes`)"
    seed: int = 0


def verify(
    analysis: Analysis,
    graph: nx.DiGraph,
    ranking: Ranking,
    *,
    config: VerifyConfig | None = None,
    held_out: EncodedPrompts | None = None,
    groups: Sequence[Sequence[Node]] = (),
    report: Report = silent,
) -> dict[str, Any]:
    """Write each node's exact effect into `graph` and return the record of `verification.json`.

    `graph` and `ranking` are those of `discover` on this analysis. With `held_out`, the circuit is
    also held against prompts that it was not found on; `groups` of the graph's features and errors
    are set together, each group at once.

    Raises `ValueError` when positions are kept and the held-out prompts have another length, and
    when nodes are to be ablated to a patch that was not the reference.
    """
    config, discovered = config or VerifyConfig(), analysis.config
    analysis, ranking = cut_of(analysis, ranking)
    to = ablated_to(analysis, config)
    other = None if held_out is None else on_held_out(analysis, held_out)
    nodes = [n for n in ordered(graph) if n.kind != "logit"]
    kept = [n for n in nodes if n.kind != "token"]
    level, seed = config.level, config.seed
    by_method = _replacement if discovered.method == "replacement" else _sparse_feature
    agreement = by_method(analysis, graph, nodes, ranking, config, report)
    # After the gradients, which take the most memory: the mean of every feature is held from here.
    scale = Scale.of(analysis, to)
    record = {
        "schema": SCHEMA,
        "level": level,
        "metric": metric_name(discovered.metric),
        **agreement,
        "curves": curves(scale, ranking, level=level, draws=config.draws, seed=seed, report=report),
        "each_adds": what_each_adds(scale, kept, level=level, report=report),
        "groups": _together(analysis, graph, groups, report),
    }
    if other is not None:
        beside = Scale.of(other, to)
        record["held_out"] = held_out_curves(beside, ranking, level=level, seed=seed, report=report)
    return record


def _sparse_feature(
    analysis: Analysis,
    graph: nx.DiGraph,
    nodes: Sequence[Node],
    ranking: Ranking,
    config: VerifyConfig,
    report: Report,
) -> dict[str, Any]:
    """Estimates against exact effects, of the graph's nodes, of a pool of others, and of edges."""
    level, seed = config.level, config.seed
    pool = (
        pooled_nodes(analysis, ranking, size=config.pool, seed=seed, report=report)
        if level == "full"
        else []
    )
    every = list(dict.fromkeys([*nodes, *pool]))
    edges, strongest = edges_to_measure(graph, seed=seed)
    exact, estimates, measured = _measured(analysis, every, edges, report)
    of_graph, of_pool = ([every.index(n) for n in some] for some in (nodes, pool))
    _write_exact(graph, nodes, exact[of_graph])
    record = {
        "estimator": analysis.config.estimator,
        "nodes": node_agreement(nodes, estimates[of_graph], exact[of_graph]),
        "edges": edge_agreement(graph, edges, strongest, measured),
    }
    if level == "full":
        record["pool"] = pool_agreement(
            pool,
            estimates[of_pool],
            exact[of_pool],
            kept={n: graph.nodes[n]["exact"] for n in nodes if n.kind != "token"},
            ranking=ranking,
            asked=analysis.config.node_count,
        )
    return record


def _replacement(
    analysis: Analysis,
    graph: nx.DiGraph,
    nodes: Sequence[Node],
    ranking: Ranking,
    config: VerifyConfig,
    report: Report,
) -> dict[str, Any]:
    """The graph's predictions against interventions, with all and with parts of the model live."""
    edges, strongest = edges_to_measure(graph, seed=config.seed)
    found = measure(analysis, nodes, edges, report)
    _write_exact(graph, nodes, found.nodes[THE_MODEL])
    return {
        "estimator": LINEAR,
        **agreements(graph, nodes, edges, strongest, found),
        "scores": scores(analysis, graph, seed=config.seed, report=report),
    }


def _write_exact(
    graph: nx.DiGraph, nodes: Sequence[Node], exact: Float[Tensor, "nodes prompts"]
) -> None:
    for node, effects in zip(nodes, exact, strict=True):
        graph.nodes[node]["exact"] = float(effects.mean())


def _together(
    analysis: Analysis, graph: nx.DiGraph, groups: Sequence[Sequence[Node]], report: Report
) -> list[dict[str, Any]]:
    done = counting(report, "groups", len(groups) * len(analysis.states))
    effects = joint_effects(analysis, groups, report=done)
    return group_scores(graph, groups, effects)


def ablated_to(analysis: Analysis, config: VerifyConfig) -> BaselineValue:
    """What nodes are ablated to; `ValueError` for a patch that was not the reference."""
    to = config.to or default_to(analysis.prompts)
    check_ablated_to(to, analysis.config.reference)
    return to


def check_ablated_to(to: BaselineValue, reference: BaselineValue) -> None:
    """Raise `ValueError` for a patch that was not the reference."""
    if to == "patch" and reference != "patch":
        raise ValueError(
            f"nodes were set to {reference} in this run, not to a patch: verify with "
            "--to mean or zero, or discover again with --reference patch"
        )


def on_held_out(analysis: Analysis, prompts: EncodedPrompts) -> Analysis:
    """The same of held-out prompts; `ValueError` where positions are kept and theirs are others."""
    other = analysis.on(prompts)
    if other.n_positions != analysis.n_positions:
        raise ValueError(
            f"the held-out prompts have {other.n_positions} tokens and the run's "
            f"{analysis.n_positions}: positions are kept, so they need one length"
        )
    return other


def _measured(
    analysis: Analysis, nodes: Sequence[Node], edges: Sequence[Edge], report: Report
) -> tuple[
    Float[Tensor, "nodes prompts"], Float[Tensor, "nodes prompts"], Float[Tensor, "edges prompts"]
]:
    """Exact and estimated effects of nodes, and exact weights of edges, on each prompt."""
    states, estimator = analysis.states, ESTIMATORS[analysis.config.estimator]
    effects_done = counting(report, "exact effects", len(nodes) * len(states))
    edges_done = counting(report, "exact edges", len(edges) * len(states))

    def measured(state: BatchState) -> tuple[Tensor, Tensor, Tensor]:
        exact = exact_effects(analysis, state, nodes, report=effects_done)
        g = estimator.gradients(analysis, state)
        estimates = exact if estimator.exact else effects_by_prompt(analysis, state, g, nodes)
        return exact, estimates, exact_edges(analysis, state, g, edges, report=edges_done)

    exact, estimates, weights = zip(*each(states, measured), strict=True)
    return torch.cat(exact, 1), torch.cat(estimates, 1), torch.cat(weights, 1)

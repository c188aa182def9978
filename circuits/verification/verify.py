"""Hold a discovered graph against ablation: its nodes, its edges, and the circuit as a set."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.faithfulness import To, default_to
from circuits.ablation.path_patching import exact_edges
from circuits.attribution.effects import effects_by_prompt
from circuits.attribution.state import States
from circuits.discovery.ranking import DiscoverConfig, Ranking, gradients_of
from circuits.graph import Node, ordered
from circuits.metrics.answers import metric_of
from circuits.metrics.readout import metric_name
from circuits.prompts import EncodedPrompts
from circuits.verification.estimator_agreement import (
    Edge,
    edge_agreement,
    edges_to_measure,
    node_agreement,
)
from circuits.verification.faithfulness_curves import (
    Level,
    Scale,
    Setting,
    curves,
    held_out_curves,
    what_each_adds,
)
from circuits.verification.pooled import pool_agreement, pooled_nodes
from hooked_qwen.progress import Report, counting, silent
from saes.suite import Suite

SCHEMA = "verification/1"


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What ablated nodes are set to, and how much is measured."""

    to: To | None = None
    "by default that of `default_to`"
    level: Level = "full"
    "`quick` measures the graph's nodes and edges, and the circuit at three sizes"
    draws: int = 3
    "random circuits averaged in each random control"
    pool: int = 50
    "nodes by each way of choosing that agreement is also measured on (see `pooled_nodes`)"
    seed: int = 0


def verify(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    graph: nx.DiGraph,
    ranking: Ranking,
    *,
    discovered: DiscoverConfig,
    config: VerifyConfig,
    held_out: EncodedPrompts | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Write each node's exact effect into `graph` and return the record of `verification.json`.

    With `held_out`, the circuit is also held against prompts that it was not found on.

    Raises `ValueError` when positions are kept and the held-out prompts have another length, and
    when nodes are to be ablated to a patch that they were not moved to.
    """
    suite = suite.fitting(model)
    metric = metric_of(discovered.metric, model, prompts, suite, positions=discovered.positions)
    to = config.to or default_to(prompts)
    if to == "patch" and discovered.reference != "patch":
        raise ValueError(
            f"nodes were moved to {discovered.reference} in this run, not to a patch: verify with "
            "--to mean or zero, or discover again with --reference patch"
        )
    setting = Setting(model=model, metric=metric, prompts=prompts, to=to, discovered=discovered)
    scale = Scale.of(setting, suite)
    nodes = [n for n in ordered(graph) if n.kind != "logit"]
    pool = (
        pooled_nodes(scale, ranking, size=config.pool, seed=config.seed, report=report)
        if config.level == "full"
        else []
    )
    every = list(dict.fromkeys([*nodes, *pool]))
    edges, strongest = edges_to_measure(graph, seed=config.seed)
    exact, estimates, measured = _measured(setting, suite, scale.states, every, edges, report)
    of_graph, of_pool = ([every.index(n) for n in some] for some in (nodes, pool))
    for node, effects in zip(nodes, exact[of_graph], strict=True):
        graph.nodes[node]["exact"] = float(effects.mean())
    kept = [n for n in nodes if n.kind != "token"]
    record = {
        "schema": SCHEMA,
        "level": config.level,
        "estimator": discovered.estimator,
        "metric": metric_name(discovered.metric),
        "nodes": node_agreement(nodes, estimates[of_graph], exact[of_graph]),
        "edges": edge_agreement(graph, edges, strongest, measured),
        "curves": curves(
            scale, ranking, level=config.level, draws=config.draws, seed=config.seed, report=report
        ),
        "each_adds": what_each_adds(scale, kept, level=config.level, report=report),
    }
    if config.level == "full":
        record["pool"] = pool_agreement(
            pool,
            estimates[of_pool],
            exact[of_pool],
            kept={n: graph.nodes[n]["exact"] for n in kept},
            ranking=ranking,
            asked=discovered.nodes,
        )
    if held_out is not None:
        record["held_out"] = _held_out(setting, suite, ranking, held_out, config, report)
    return record


def _held_out(
    setting: Setting,
    suite: Suite,
    ranking: Ranking,
    prompts: EncodedPrompts,
    config: VerifyConfig,
    report: Report,
) -> dict[str, Any]:
    other = Setting(
        model=setting.model,
        metric=metric_of(
            setting.discovered.metric,
            setting.model,
            prompts,
            suite,
            positions=setting.discovered.positions,
        ),
        prompts=prompts,
        to=setting.to,
        discovered=setting.discovered,
    )
    if other.n_positions != setting.n_positions:
        raise ValueError(
            f"the held-out prompts have {other.n_positions} tokens and the run's "
            f"{setting.n_positions}: positions are kept, so they need one length"
        )
    scale = Scale.of(other, suite)
    return held_out_curves(scale, ranking, level=config.level, seed=config.seed, report=report)


def _measured(
    setting: Setting,
    suite: Suite,
    states: States,
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    report: Report,
) -> tuple[
    Float[Tensor, "nodes prompts"], Float[Tensor, "nodes prompts"], Float[Tensor, "edges prompts"]
]:
    """Exact and estimated effects of nodes, and exact weights of edges, on each prompt."""
    model, metric, discovered = setting.model, setting.metric, setting.discovered
    effects_done = counting(report, "exact effects", len(nodes) * len(states))
    edges_done = counting(report, "exact edges", len(edges) * len(states))
    exact, estimates, weights = [], [], []
    for state in states:
        exact.append(exact_effects(model, suite, state, metric, nodes, report=effects_done))
        g = gradients_of(model, suite, state, metric, discovered)
        estimates.append(
            exact[-1]
            if discovered.estimator == "exact"
            else effects_by_prompt(suite, state, g, nodes)
        )
        found = exact_edges(model, suite, state, g, metric, edges, report=edges_done)
        weights.append(found)
    return torch.cat(exact, 1), torch.cat(estimates, 1), torch.cat(weights, 1)

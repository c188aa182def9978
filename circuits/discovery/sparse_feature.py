"""From prompts to a sparse feature graph: node effects, the strongest of them, their edges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation.faithfulness import ablation_means, default_to, ends, metrics_with
from circuits.attribution.edges import LOGIT, EdgeWeights, edge_weights
from circuits.attribution.node_effects import TOKEN
from circuits.attribution.spill import PerSite
from circuits.attribution.state import BatchState
from circuits.discovery.choice import SPARE, choose, pool_of
from circuits.discovery.output import output_node, prompts_record
from circuits.discovery.prune import Removal, kept_edges
from circuits.discovery.ranking import (
    DiscoverConfig,
    Ranking,
    rank_nodes,
    reference_means,
    rules_of,
    states_of,
)
from circuits.discovery.resume import NOTHING_KEPT, Parts
from circuits.discovery.summary import Summary
from circuits.discovery.verdicts import Kept, of_nodes, of_task
from circuits.features.card import promoted_labels
from circuits.graph import Node, rounded
from circuits.metrics.answers import metric_of
from circuits.metrics.metric import Metric
from circuits.metrics.readout import MetricChoice, metric_name
from circuits.prompts import EncodedPrompts
from hooked_qwen.identity import identity
from hooked_qwen.progress import Report, silent
from saes.nodes import NodeSet
from saes.suite import Suite

OUTPUT = Node(LOGIT, LOGIT)
"The output while the graph is made; at the end it is named by the answer."


@dataclass(frozen=True)
class Discovery:
    """A graph, and the mean effect of every node that moves, strongest first."""

    graph: nx.DiGraph
    ranking: Ranking
    norm_outliers: dict[str, Any]
    "tokens of the clean prompts, and how many of them are norm outliers at which site"


def discover(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    *,
    config: DiscoverConfig,
    states: Sequence[BatchState] | None = None,
    metric: Metric | None = None,
    parts: Parts = NOTHING_KEPT,
    report: Report = silent,
) -> Discovery:
    """Estimate every node's effect on the metric, keep the strongest, weigh their edges.

    Effects and weights are means over the prompts; thresholds apply to the means. `states` are
    those of the prompts in an edited model, with its `metric` (`circuits.edits.edited`); without
    them the model is plain. `parts` keeps what is done of them, batch by batch.
    """
    suite = suite.fitting(model)
    if metric is None:
        metric = metric_of(config.metric, model, prompts, suite, positions=config.positions)
    means = None
    if states is None:
        means = reference_means(model, suite, prompts, config)
        states = states_of(model, suite, prompts, config, means)
    ranking, gradients = rank_nodes(
        model,
        suite,
        prompts,
        metric,
        config=config,
        means=means,
        states=states,
        parts=parts,
        report=report,
    )
    tokens = ranking.where(ranking.feature == TOKEN)
    inputs = tokens.nodes()
    pool = pool_of(ranking, config)
    weights: dict[tuple[Node, Node], float] = {}
    summary, done = Summary(prompts, pool.nodes), 0
    nodes = [*pool.nodes, *inputs]
    for batch, (state, g) in enumerate(zip(states, gradients, strict=True)):

        def find(state: BatchState = state, g: PerSite = g) -> EdgeWeights:
            with rules_of(model, config):
                return edge_weights(model, suite, state, g, metric, nodes, steps=config.edge_steps)

        found = parts.edges(batch, find)
        for pair, weight in found.items():
            weights[pair] = weights.get(pair, 0.0) + weight / len(prompts)
        summary.add(state, metric)
        done += len(state.rows)
        report("edges", done, len(prompts))
    measure = None
    if config.faithfulness is not None:
        measure = _faithfulness(model, suite, prompts, states, metric, config, report)
    chosen, kept = choose(pool, inputs, OUTPUT, weights, config, measure)
    effects = dict(ranking.inner()[: config.nodes + SPARE]) | dict(tokens)
    graph = _graph([*chosen, *inputs], effects, weights, config)
    for node, activation in zip(pool.nodes, summary.activations(), strict=True):
        if node in graph:
            graph.nodes[node]["activation"] = activation
    _name_output(graph, prompts, summary, config.metric)
    _add_tokens(graph, prompts)
    for node, label in promoted_labels(model, suite, graph).items():
        graph.nodes[node]["label"] = label
    graph.graph.update(_meta(model, suite, prompts, config, summary, weights, graph))
    graph.graph.update(_told(kept, summary, config))
    return Discovery(graph, ranking, summary.norm_outliers())


def _faithfulness(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    states: Sequence[BatchState],
    metric: Metric,
    config: DiscoverConfig,
    report: Report,
) -> Removal:
    """Measures circuits as `verify` does by default."""
    to = default_to(prompts)
    options = {"positions": config.positions, "batch_size": config.batch_size}
    means = ablation_means(model, suite, prompts, **options) if to == "mean" else None
    scale = ends(model, suite, states, metric, to, means)
    done = 0

    def measure(circuits: Sequence[Sequence[Node]]) -> list[float]:
        nonlocal done
        sets = [NodeSet.of(nodes) for nodes in circuits]
        values = metrics_with(model, suite, states, metric, sets, to, means)
        done += len(circuits)
        report(f"elimination, {max(map(len, circuits))} nodes left", done, done + 1)
        return scale.faithfulness(values).values.tolist()

    return measure


def _graph(
    nodes: Sequence[Node],
    effects: Mapping[Node, float],
    weights: Mapping[tuple[Node, Node], float],
    config: DiscoverConfig,
) -> nx.DiGraph:
    graph = nx.DiGraph()
    for node in nodes:
        activation = None if node.kind == "token" else 0.0
        graph.add_node(
            node, kind=node.kind, effect=effects[node], exact=None, activation=activation, label=""
        )
    floor = config.edge_threshold * max(
        (abs(effects[n]) for n in nodes if n.kind != "token"), default=0.0
    )
    graph.add_node(OUTPUT)
    for (source, target), weight in kept_edges([*nodes, OUTPUT], weights, floor=floor).items():
        graph.add_edge(source, target, weight=weight)
    return graph


def _name_output(
    graph: nx.DiGraph, prompts: EncodedPrompts, summary: Summary, metric: MetricChoice
) -> None:
    total = None if summary.patch is None else summary.patch - summary.clean
    node, label = output_node(prompts, metric)
    nx.relabel_nodes(graph, {OUTPUT: node}, copy=False)
    graph.add_node(
        node,
        kind="logit",
        effect=total,
        exact=total,
        activation=summary.clean,
        label=label,
    )


def _add_tokens(graph: nx.DiGraph, prompts: EncodedPrompts) -> None:
    for node, data in graph.nodes(data=True):
        columns = prompts.columns
        data["token"] = columns[node.position] if columns and node.position is not None else None
        if data["kind"] == "token":
            data["label"] = data["token"] or "tokens"
        elif data["kind"] == "error":
            data["label"] = f"error of {node.site}"


def _meta(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    config: DiscoverConfig,
    summary: Summary,
    weights: Mapping[tuple[Node, Node], float],
    graph: nx.DiGraph,
) -> dict[str, Any]:
    return {
        "method": "sparse-feature",
        **config.record(),
        "edge_units": "metric",
        "n_prompts": len(prompts),
        **prompts_record(prompts),
        "begins_with": list(prompts.begins_with),
        "tokens_hash": prompts.tokens_hash(),
        "columns": list(prompts.columns) if prompts.columns and config.positions != "sum" else None,
        "clean_metric": rounded(summary.clean),
        "patch_metric": rounded(summary.patch),
        "accuracy": rounded(summary.accuracy),
        "edges_computed": len(weights),
        "edges_kept": graph.number_of_edges(),
        "model": {
            "name": model.cfg.model_name,
            "hash": identity(model),
            "architecture": model.cfg.architecture,
            "layers": model.cfg.n_layers,
            "d_model": model.cfg.d_model,
        },
        "dictionaries": suite.describe(),
    }


def _told(kept: Kept, summary: Summary, config: DiscoverConfig) -> dict[str, Any]:
    """What became of the nodes that were asked for, and what a reader should hear of it."""
    of_metric = of_task(
        metric_name(config.metric),
        summary.clean,
        summary.patch,
        summary.accuracy,
        size=summary.size,
    )
    return {**kept.record(), "notices": [*of_metric, *of_nodes(kept)]}

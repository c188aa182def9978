"""From prompts to a sparse feature graph: node effects, the strongest of them, their edges."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx

from circuits.ablation.faithfulness import default_to, full_and_empty, metrics_with
from circuits.analysis import Analysis
from circuits.attribution.edges import LOGIT, edge_weights
from circuits.attribution.estimators import ESTIMATORS
from circuits.attribution.node_effects import TOKEN
from circuits.attribution.spill import PerSite
from circuits.attribution.state import BatchState, each
from circuits.discovery.about import about
from circuits.discovery.choice import SPARE, choose, pool_of
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.output import output_node
from circuits.discovery.prune import Removal, kept_edges
from circuits.discovery.ranking import Ranking, rank_nodes
from circuits.discovery.resume import NOTHING_KEPT, DiscoveryParts
from circuits.discovery.summary import Summary
from circuits.discovery.verdicts import NodeCounts, of_nodes, of_task
from circuits.features.card import promoted_labels
from circuits.graph import EdgeWeights, Node
from circuits.metrics.readout import metric_name
from circuits.prompts import EncodedPrompts
from hooked_qwen.progress import Report, counting, silent
from saes.nodes import NodeSet

OUTPUT = Node(LOGIT, LOGIT)
"The output while the graph is made; at the end it is named by the answer."


@dataclass(frozen=True)
class Discovery:
    """A graph, and the mean effect of every changed node, strongest first."""

    graph: nx.DiGraph
    ranking: Ranking
    norm_outliers: dict[str, Any]
    "tokens of the clean prompts, and how many of them are norm outliers at which site"


def discover(
    analysis: Analysis, *, parts: DiscoveryParts = NOTHING_KEPT, report: Report = silent
) -> Discovery:
    """Estimate every node's effect on the metric, keep the strongest, weigh their edges.

    Effects and weights are means over the prompts; thresholds apply to the means. `parts` keeps
    what is done of them, batch by batch.
    """
    config = analysis.config
    ranking, gradients = rank_nodes(analysis, parts=parts, report=report)
    tokens = ranking.where(ranking.feature == TOKEN)
    inputs, pool = tokens.nodes(), pool_of(ranking, config)
    summary = Summary(analysis.prompts, pool.nodes)
    nodes = [*pool.nodes, *inputs]
    weights = _weights(analysis, gradients, nodes, summary, parts, report)
    measure = None if config.faithfulness is None else _faithfulness(analysis, report)
    chosen, kept = choose(pool, inputs, OUTPUT, weights, config, measure)
    effects = dict(ranking.inner()[: config.node_count + SPARE]) | dict(tokens)
    graph = _graph([*chosen, *inputs], effects, weights, config)
    for node, activation in zip(pool.nodes, summary.activations(), strict=True):
        if node in graph:
            graph.nodes[node]["activation"] = activation
    _name_output(graph, analysis, summary)
    _add_tokens(graph, analysis.prompts)
    for node, label in promoted_labels(analysis.model, analysis.suite, graph).items():
        graph.nodes[node]["label"] = label
    said = about(
        analysis,
        graph,
        clean=summary.clean,
        patch=summary.patch,
        accuracy=summary.accuracy,
        edge_units="metric",
        edges_computed=len(weights),
    )
    graph.graph.update({"method": "sparse-feature"} | said)
    graph.graph.update(_told(kept, summary, config))
    return Discovery(graph, ranking, summary.norm_outliers())


def _weights(
    analysis: Analysis,
    gradients: Sequence[PerSite],
    nodes: Sequence[Node],
    summary: Summary,
    parts: DiscoveryParts,
    report: Report,
) -> EdgeWeights:
    """Mean weights of all edges among `nodes`; each batch of prompts is added to the `summary`."""
    estimator, n = ESTIMATORS[analysis.config.estimator], len(analysis.prompts)
    weights: EdgeWeights = {}
    done, batch = counting(report, "edges", n), iter(range(len(gradients)))

    def add(state: BatchState) -> None:
        at = next(batch)

        def find() -> EdgeWeights:
            with estimator.rules(analysis.model):
                return edge_weights(analysis, state, gradients[at], nodes)

        for pair, weight in parts.edges(at, find).items():
            weights[pair] = weights.get(pair, 0.0) + weight / n
        summary.add(state, analysis.metric)
        done(len(state.rows))

    each(analysis.states, add)
    return weights


def _faithfulness(analysis: Analysis, report: Report) -> Removal:
    """Measures circuits as `verify` does by default."""
    to = default_to(analysis.prompts)
    scale = full_and_empty(analysis, to)
    done = 0

    def measure(circuits: Sequence[Sequence[Node]]) -> list[float]:
        nonlocal done
        sets = [NodeSet.of(nodes) for nodes in circuits]
        values = metrics_with(analysis, sets, to)
        done += len(circuits)
        report(f"elimination, {max(map(len, circuits))} nodes left", done, done + 1)
        return scale.faithfulness(values).values.tolist()

    return measure


def _graph(
    nodes: Sequence[Node],
    effects: Mapping[Node, float],
    weights: EdgeWeights,
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


def _name_output(graph: nx.DiGraph, analysis: Analysis, summary: Summary) -> None:
    total = None if summary.patch is None else summary.patch - summary.clean
    tokenizer = analysis.model.tokenizer
    node, label = output_node(analysis.prompts, analysis.config.metric, tokenizer)
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


def _told(kept: NodeCounts, summary: Summary, config: DiscoverConfig) -> dict[str, Any]:
    """What became of the nodes that were asked for, and what a reader should hear of it."""
    of_metric = of_task(
        metric_name(config.metric),
        summary.clean,
        summary.patch,
        summary.accuracy,
        size=summary.size,
    )
    return {**kept.record(), "notices": [*of_metric, *of_nodes(kept)]}

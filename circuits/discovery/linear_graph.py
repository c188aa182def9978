"""Which nodes and edges a replacement graph keeps, and the graph.

    nodes       at most so many features and errors, those of most influence
    threshold   those of them with this much influence
    influence   the fewest of them that hold this share of the influence of all

Features and errors that no chain of kept edges leads from to an output are left out. An edge is
kept that carries `edge_threshold` of the influence of the most influential node, and each node's
strongest in and out. With `nodes` all, nothing is left out. With `paths`, what lies on the
strongest paths is kept in place of all that, and edges say what the paths through them add up to.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.about import about
from circuits.discovery.choice import SPARE
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.linear_edges import LinearEdges
from circuits.discovery.path_graph import OnPaths
from circuits.discovery.prune import ROUNDING, connected, kept_edges
from circuits.discovery.tracing import Tracing
from circuits.discovery.verdicts import of_task
from circuits.features.card import promoted_labels
from circuits.graph import Node, rounded
from circuits.metrics.readout import metric_name

OUTPUT = Node("logit", "")
"All outputs together, while nodes are chosen."
UNITS = "pre-activation of the target"


@dataclass(frozen=True)
class LinearNodePool:
    """The nodes that a graph is chosen from."""

    known: Int[Tensor, " known"]
    "their keys, rising"
    nodes: tuple[Node, ...]
    "features and errors, those of most influence first"
    tokens: tuple[Node, ...]
    by_rank: tuple[Node, ...]
    "every node, in the order of `known`"
    active: int
    "features and errors that there are"
    left_out: dict[str, int]
    "by the rule that left them out"
    share: float
    "of the influence of all, what those that may be kept hold"


def nodes_to_weigh(
    influence: NodeEffects, config: DiscoverConfig, on_paths: OnPaths | None = None
) -> LinearNodePool:
    """The nodes of most influence, and some to spare where one is not connected.

    Where paths are kept, those that lie on them.
    """
    inner = influence.inner()
    tokens = influence.where(~_among(influence, inner))
    total = float(inner.effect.sum())
    active, kept, left_out = len(inner), len(inner), {}
    if on_paths is not None:
        inner, tokens = (some.where(torch.isin(some.key, on_paths.key)) for some in (inner, tokens))
        kept = len(inner)
        left_out["on_no_path"] = active - kept
    elif config.nodes is not None:
        tokens = tokens[: config.nodes]
        for rule, count in _limits(inner, config, total).items():
            if count < kept:
                left_out[rule], kept = kept - count, count
    chosen = inner[:kept]
    both = NodeEffects.one_after_another([chosen, tokens])
    order = both.key.argsort()
    return LinearNodePool(
        known=both.key[order],
        nodes=tuple(chosen.nodes()),
        tokens=tuple(tokens.nodes()),
        by_rank=tuple(both[order].nodes()),
        active=active,
        left_out=left_out,
        share=float(chosen.effect.sum()) / total if total else 1.0,
    )


def _among(nodes: NodeEffects, some: NodeEffects) -> Tensor:
    return torch.isin(nodes.key, some.key)


def _limits(inner: NodeEffects, config: DiscoverConfig, total: float) -> dict[str, int]:
    """How many of the most influential nodes each rule lets through."""
    assert config.nodes is not None
    influence = inner.effect
    found = {"no_influence": int((influence > 0).sum())}
    if config.threshold is not None:
        found["below_threshold"] = int((influence >= config.threshold).sum())
    if config.influence is not None:
        enough = influence.cumsum(0) >= config.influence * total * (1 - ROUNDING)
        found["little_influence"] = int((~enough).sum()) + 1
    return found | {"no_room": config.nodes + SPARE}


def graph_of(
    analysis: Analysis,
    tracing: Tracing,
    pool: LinearNodePool,
    sums: LinearEdges,
    on_paths: OnPaths | None = None,
) -> nx.DiGraph:
    """The graph of the edges that were weighed."""
    edges = sums.mean()
    ends = ends_of(pool, tracing)
    pairs = [
        (ends[s], ends[t])
        for s, t in zip(edges.source.tolist(), edges.target.tolist(), strict=True)
    ]
    flow = dict(zip(pairs, edges.flow.tolist(), strict=True))
    if on_paths is None:
        nodes, kept = _kept(analysis.config, pool, flow, tracing)
    else:
        nodes, kept = list(pool.nodes), set(on_paths.edges)
    graph = nx.DiGraph()
    _add_nodes(graph, nodes, analysis, tracing, pool, sums)
    of_set = len(analysis.prompts) > 1
    values = zip(pairs, edges.weight.tolist(), edges.spread.tolist(), strict=True)
    for pair, weight, spread in values:
        if pair in kept:
            data = {"weight": weight, "influence": rounded(flow[pair])}
            if on_paths is not None:
                data["paths"] = rounded(on_paths.edges[pair])
            graph.add_edge(*pair, **data, **({"spread": rounded(spread)} if of_set else {}))
    _label(graph, analysis)
    graph.graph.update(_meta(analysis, graph, tracing, pool, nodes, len(pairs)))
    if on_paths is not None:
        graph.graph["paths"] = on_paths.record()
        graph.graph["notices"].append(
            f"the {len(on_paths.paths):,} strongest paths add up to {on_paths.weight:.3g} of "
            f"{on_paths.total:.3g}"
        )
    return graph


def ends_of(pool: LinearNodePool, tracing: Tracing) -> list[Node]:
    """Every node that an edge may join, by its rank."""
    return [*pool.by_rank, *(output.node for output in tracing.prompts[0].outputs.outputs)]


def _kept(
    config: DiscoverConfig,
    pool: LinearNodePool,
    flow: dict[tuple[Node, Node], float],
    tracing: Tracing,
) -> tuple[list[Node], set[tuple[Node, Node]]]:
    """Features and errors that are kept, and edges."""
    if config.nodes is None:
        return list(pool.nodes), set(flow)
    together: dict[tuple[Node, Node], float] = {}
    for (source, target), value in flow.items():
        pair = (source, OUTPUT if target.kind == "logit" else target)
        together[pair] = together.get(pair, 0.0) + value
    nodes = connected(pool.nodes, together, count=config.nodes, output=OUTPUT, inputs=())
    outputs = [output.node for output in tracing.prompts[0].outputs.outputs]
    influence = dict(tracing.influence)
    floor = config.edge_threshold * max((influence[n] for n in nodes), default=0.0)
    return nodes, set(kept_edges([*nodes, *pool.tokens, *outputs], flow, floor=floor))


def _add_nodes(
    graph: nx.DiGraph,
    nodes: Sequence[Node],
    analysis: Analysis,
    tracing: Tracing,
    pool: LinearNodePool,
    sums: LinearEdges,
) -> None:
    wanted = set(nodes) | set(pool.tokens)
    influence, effects = _values(tracing.influence, pool), _values(tracing.effects, pool)
    columns = analysis.prompts.columns
    for node, found in zip(pool.by_rank, sums.of_nodes(), strict=False):
        if node not in wanted:
            continue
        activation, pre_activation, bias = found
        graph.add_node(
            node,
            kind=node.kind,
            token=columns[node.position] if columns and node.position is not None else None,
            activation=None if node.kind == "token" else activation,
            effect=effects[node],
            exact=None,
            influence=rounded(influence[node]),
        )
        if node.kind == "feature":
            graph.nodes[node].update(pre_activation=rounded(pre_activation), bias=rounded(bias))
    _add_outputs(graph, tracing, pool, sums)


def _values(of: NodeEffects, pool: LinearNodePool) -> dict[Node, float]:
    return dict(of.where(torch.isin(of.key, pool.known.cpu())))


def _add_outputs(
    graph: nx.DiGraph, tracing: Tracing, pool: LinearNodePool, sums: LinearEdges
) -> None:
    first, n = tracing.prompts[0], len(tracing.prompts)
    found = sums.of_nodes()[len(pool.known) :]
    for number, (output, values) in enumerate(zip(first.outputs.outputs, found, strict=True)):
        _, pre_activation, bias = values
        changes = [float(p.change[number]) for p in tracing.prompts if p.change is not None]
        change = sum(changes) / n if changes else None
        graph.add_node(
            output.node,
            kind="logit",
            token=None,
            activation=pre_activation,
            effect=change,
            exact=change,
            label=output.label,
            influence=rounded(output.share),
            pre_activation=rounded(pre_activation),
            bias=rounded(bias),
        )
        if output.probability is not None:
            graph.nodes[output.node]["probability"] = rounded(output.probability)


def _label(graph: nx.DiGraph, analysis: Analysis) -> None:
    labels = promoted_labels(analysis.model, analysis.suite, graph)
    for node, data in graph.nodes(data=True):
        if node.kind == "token":
            data["label"] = data["token"] or "tokens"
        elif node.kind == "error":
            data["label"] = f"error of {node.site}"
        elif node.kind == "feature":
            data["label"] = labels[node]


def _meta(
    analysis: Analysis,
    graph: nx.DiGraph,
    tracing: Tracing,
    pool: LinearNodePool,
    nodes: Sequence[Node],
    weighed: int,
) -> dict[str, Any]:
    config, prompts = analysis.config, tracing.prompts
    clean, patch, accuracy = (_mean([getattr(p, name) for p in prompts])
                              for name in ("clean", "patch", "right"))  # fmt: skip
    assert clean is not None
    said = about(
        analysis,
        graph,
        clean=clean,
        patch=patch,
        accuracy=accuracy,
        edge_units=UNITS,
        edges_computed=weighed,
    )
    left_out = dict(pool.left_out)
    if unconnected := len(pool.nodes) - len(nodes):
        left_out["no_room"] = left_out.get("no_room", 0) + unconnected
    counts = Counter(node.kind for node in nodes)
    not_traced = sum(p.influence.not_traced for p in prompts)
    return {
        "method": "replacement",
        **said,
        "replacement_score": rounded(tracing.replacement),
        "completeness_score": rounded(tracing.completeness),
        "nodes_active": pool.active,
        "nodes_kept": len(nodes),
        "features_kept": counts["feature"],
        "errors_kept": counts["error"],
        "left_out": left_out,
        "influence_reached": rounded(_share(tracing, nodes)),
        "features_traced": sum(p.influence.traced for p in prompts),
        "features_not_traced": not_traced,
        "notices": [
            *of_task(
                metric_name(config.metric), clean, patch, accuracy,
                size=sum(abs(p.clean) for p in prompts) / len(prompts),
            ),
            *_notices(tracing, config, not_traced),
        ],
    }  # fmt: skip


def _share(tracing: Tracing, nodes: Sequence[Node]) -> float:
    """Of the influence of all features and errors, what the nodes hold."""
    inner = dict(tracing.influence.inner())
    total = sum(inner.values())
    return sum(inner[node] for node in nodes) / total if total else 1.0


def _notices(tracing: Tracing, config: DiscoverConfig, not_traced: int) -> list[str]:
    found = [
        f"{tracing.replacement:.0%} of the influence that reaches the output comes from tokens "
        f"rather than errors of the transcoders (replacement score), and {tracing.completeness:.0%}"
        " of the inputs, by influence, are no errors (completeness score)"
    ]
    if not_traced:
        lost = sum(p.influence.not_traced_influence for p in tracing.prompts)
        found.append(
            f"the inputs of {not_traced:,} features were not traced ({config.targets:,} are at "
            f"most); they have {lost / len(tracing.prompts):.2f} of influence and count as errors: "
            "ask for more --targets"
        )
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None

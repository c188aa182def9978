"""A circuit of nodes and edges: which edges it has, could have, and which nodes it may be of.

What the model does restricted to it is computed in `circuits.ablation.restricted_run`.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import networkx as nx

from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.direct_paths import reaching_node, sites_of, to_output
from circuits.attribution.vjp_batches import order_of
from circuits.graph import Edge
from circuits.metrics.metric import Metric
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.edit_checks import check_node
from saes.suite import Suite

OUTPUT = Node("logit", "logit")
View = frozenset[Node]
"The nodes that have their values in the circuit; the others are at their baseline."


@dataclass(frozen=True)
class EdgeCircuit:
    """Nodes, and the edges between them and to the metric."""

    nodes: tuple[Node, ...]
    "features, errors and tokens, each once"
    edges: frozenset[Edge]
    "those to the metric end at `OUTPUT`"

    @classmethod
    def of(cls, graph: nx.DiGraph) -> "EdgeCircuit":
        """That of a graph; all of its outputs are the metric.

        Raises `ValueError` for a node that stands both at a position and at every one.
        """
        nodes = tuple(n for n in graph if n.kind != "logit")
        for node in nodes:
            if node.position is not None and node._replace(position=None) in graph:
                raise ValueError(
                    f"{node} is in the graph, and so is {node._replace(position=None)}, which is "
                    "that node at every position: leave one out"
                )
        edges = ((u, OUTPUT if d.kind == "logit" else d) for u, d in graph.edges)
        return cls(nodes, frozenset(edges))

    def view(self, target: Node) -> View:
        """Those with an edge to `target`."""
        return self._parents.get(target, frozenset())

    @cached_property
    def _parents(self) -> Mapping[Node, View]:
        found: dict[Node, set[Node]] = defaultdict(set)
        for source, target in self.edges:
            found[target].add(source)
        return {target: frozenset(sources) for target, sources in found.items()}


def possible_edges(suite: Suite, metric: Metric, nodes: Sequence[Node]) -> list[Edge]:
    """Every edge that a direct path could carry: forward in layers and positions."""
    found = []
    for target in (*nodes, OUTPUT):
        if target.kind == "token":
            continue
        reach = set(_reaching(suite, metric, target))
        for source in nodes:
            at = {EMBED} if source.kind == "token" else set(sites_of(suite, source))
            if at.isdisjoint(reach) or not _forward(suite, source, target):
                continue
            found.append((source, target))
    return found


def _reaching(suite: Suite, metric: Metric, target: Node) -> list[Site]:
    return to_output(suite, metric) if target == OUTPUT else reaching_node(suite, target)


def _forward(suite: Suite, source: Node, target: Node) -> bool:
    if target == OUTPUT:
        return True
    p, q = source.position, target.position
    earlier = source.kind == "token" or order_of(suite, source) < order_of(suite, target)
    return earlier and (p is None or q is None or p <= q)


def check_circuit(suite: Suite, circuit: EdgeCircuit) -> None:
    """Raise `ValueError` for a node that the dictionaries do not have, or an edge to no node."""
    if EMBED in suite.writes:
        raise ValueError(
            "edges cannot be cut where a dictionary writes the embeddings: the tokens are nodes "
            "there already"
        )
    known = {*circuit.nodes, OUTPUT}
    for node in circuit.nodes:
        if node.kind != "token":
            check_node(suite, node)
    for edge in circuit.edges:
        if not known.issuperset(edge):
            raise ValueError(f"the edge {edge[0]} -> {edge[1]} joins no two nodes of the circuit")

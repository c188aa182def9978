"""Which nodes a graph keeps of those that were weighed, and where the others went."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from circuits.discovery.config import DiscoverConfig
from circuits.discovery.prune import (
    Removal,
    above_threshold,
    by_faithfulness,
    by_influence,
    connected,
    share_of_influence,
    unconnected,
)
from circuits.discovery.ranking import Ranking
from circuits.discovery.verdicts import NodeCounts
from circuits.graph import EdgeWeights, Node

SPARE = 20
"Nodes beyond those wanted that are weighed too, and may connect them."


@dataclass(frozen=True)
class NodePool:
    """The nodes that a graph is chosen from."""

    nodes: list[Node]
    considered: int
    "those and the ones under the threshold"
    changed: int
    "features and errors that differ between clean and reference anywhere"


def pool_of(ranking: Ranking, config: DiscoverConfig) -> NodePool:
    """The strongest features and errors: some to spare, where one is not connected."""
    nodes = ranking.inner()
    strongest = list(nodes[: config.node_count + SPARE])
    threshold = config.threshold or 0.0
    return NodePool(above_threshold(strongest, threshold), len(strongest), len(nodes))


def choose(
    pool: NodePool,
    inputs: Sequence[Node],
    output: Node,
    weights: EdgeWeights,
    config: DiscoverConfig,
    measure: Removal | None,
) -> tuple[list[Node], NodeCounts]:
    """The nodes of the graph; the strongest as they are, where none has a path to the output."""
    nodes, count = pool.nodes, config.node_count

    def connect(some: Sequence[Node]) -> list[Node]:
        return connected(some, weights, count=count, output=output, inputs=inputs)

    if config.influence is not None:
        kept = by_influence(nodes, weights, output, config.influence, connect=connect)
    else:
        kept = connect(nodes)
    faithfulness = None
    if kept and measure is not None and config.faithfulness is not None:
        kept = by_faithfulness(kept, measure, config.faithfulness, connect)
        faithfulness = (config.faithfulness, measure([kept])[0])
    kept = kept or nodes[:count]
    reached = None
    if config.influence is not None:
        reached = share_of_influence(kept, nodes, weights, output)
    return kept, NodeCounts(
        asked=count,
        changed=pool.changed,
        considered=pool.considered,
        kept=len(kept),
        left_out=_left_out(pool, kept, inputs, output, weights, config),
        unconnected=sum(map(len, unconnected(kept, weights, output=output, inputs=inputs))),
        influence=None if reached is None else (config.influence or 0.0, reached),
        faithfulness=faithfulness,
    )


def _left_out(
    pool: NodePool,
    kept: Sequence[Node],
    inputs: Sequence[Node],
    output: Node,
    weights: EdgeWeights,
    config: DiscoverConfig,
) -> dict[str, int]:
    """Why each node that was considered is not in the graph, counted."""
    no_way_out, no_way_in = map(set, unconnected(pool.nodes, weights, output=output, inputs=inputs))
    rule = "no_room"
    if config.influence is not None:
        rule = "little_influence"
    elif config.faithfulness is not None:
        rule = "eliminated"

    def why(node: Node) -> str:
        if node in no_way_out:
            return "no_path_to_output"
        return "no_path_from_tokens" if node in no_way_in else rule

    inside = set(kept)
    counts = Counter(why(node) for node in pool.nodes if node not in inside)
    below = {"below_threshold": pool.considered - len(pool.nodes)}
    return {name: n for name, n in sorted((below | dict(counts)).items()) if n}

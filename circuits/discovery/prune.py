"""From ranked nodes and weighted edges to a circuit: which nodes, which edges, all connected.

    strongest     the n nodes with the largest |effect|
    threshold     those of them with |effect| of at least t
    influence     the fewest of them with a share p of all influence on the output
    faithfulness  what is left of them when the least needed are taken away until the circuit
                  would fall under a faithfulness f (backward elimination); it hangs together
                  in every round, so that what is measured is what is kept

Every node that is kept has a path to the output, and one from the tokens where these change; every
edge that is kept is either strong or one of the two that connect a node. All choices are
deterministic: ties are broken by the node's name.

Influence of a node: the sum, over all paths to the output, of the products of normalised edges

    influence = (I - A)^-1 A at the output,      A[t, s] = |w(s -> t)| / sum over s of |w(s -> t)|

Source: Marks et al. 2024, arXiv:2403.19647 (thresholds); Ameisen et al. 2025, Circuit Tracing
(influence).
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence

import networkx as nx

from circuits.graph import EdgeWeights, Node

Removal = Callable[[Sequence[Sequence[Node]]], Sequence[float]]
"Faithfulness of each of some circuits."
Connect = Callable[[Sequence[Node]], list[Node]]
"Those of some nodes that lie on paths through them."
ROUNDING = 1e-9
"All of a sum is all of it, in whatever order it was added up."
AT_ONCE = 10
"A round of elimination takes away one node in this many."


def above_threshold(ranking: Sequence[tuple[Node, float]], threshold: float) -> list[Node]:
    """Nodes with an effect of at least `threshold` in size, in units of the metric."""
    return [node for node, effect in ranking if abs(effect) >= threshold]


def by_influence(
    nodes: Sequence[Node],
    weights: EdgeWeights,
    output: Node,
    share: float,
    *,
    connect: Connect = list,
) -> list[Node]:
    """The fewest of `nodes` that hold `share` of their summed influence on `output`.

    The share is that of the ones which `connect` leaves; all of these where they hold less.
    """
    found = influence(weights, output)
    ranked = sorted((n for n in nodes if found.get(n, 0.0) > 0), key=lambda n: (-found[n], str(n)))
    wanted = share * sum(found[n] for n in ranked)

    def first(count: int) -> list[Node]:
        some = set(ranked[:count])
        return connect([node for node in nodes if node in some])

    def holds(count: int) -> bool:
        return sum(found[n] for n in first(count)) >= wanted * (1 - ROUNDING)

    return first(bisect_left(range(len(ranked)), True, key=holds))


def share_of_influence(
    kept: Collection[Node], nodes: Collection[Node], weights: EdgeWeights, output: Node
) -> float:
    """The share that `kept` hold of the summed influence of `nodes`; 1 where these have none."""
    found = influence(weights, output)
    total = sum(found.get(n, 0.0) for n in nodes)
    return sum(found.get(n, 0.0) for n in kept) / total if total else 1.0


def unconnected(
    nodes: Collection[Node],
    weights: EdgeWeights,
    *,
    output: Node,
    inputs: Collection[Node],
) -> tuple[list[Node], list[Node]]:
    """Those of `nodes` without a path to `output`, and others without one from `inputs`.

    Paths run through `nodes` and inputs. Where there are no inputs none has to begin there.
    """
    graph = _graph(_among({*nodes, *inputs, output}, weights))
    lead = nx.ancestors(graph, output) if output in graph else set()
    reached = {n for i in inputs if i in graph for n in nx.descendants(graph, i)}
    no_way_out = [n for n in nodes if n not in lead]
    no_way_in = [n for n in nodes if n in lead and n not in reached] if inputs else []
    return no_way_out, no_way_in


def influence(weights: EdgeWeights, output: Node) -> dict[Node, float]:
    """Influence of every node on `output`, whose own is 1."""
    graph = _graph(weights)
    into = {node: sum(abs(w) for _, _, w in graph.in_edges(node, data="weight")) for node in graph}
    found = dict.fromkeys(graph, 0.0)
    if output not in found:
        return found
    found[output] = 1.0
    for node in reversed(list(nx.lexicographical_topological_sort(graph, key=str))):
        for source, _, weight in graph.in_edges(node, data="weight"):
            found[source] += found[node] * abs(weight) / into[node]
    return found


def by_faithfulness(
    nodes: Sequence[Node], faithfulness: Removal, target: float, connect: Connect
) -> list[Node]:
    """Take the least needed of `nodes` away, a few at a time, while faithfulness stays at `target`.

    Each round measures the circuit without each of its nodes and what hangs on it, and drops those
    it misses least; fewer, down to one, where dropping them together goes too far. A
    circuit that never reaches the target is given back whole.
    """
    kept = connect(nodes)
    while len(kept) > 1:
        without = faithfulness([connect([n for n in kept if n != node]) for node in kept])
        order = sorted(range(len(kept)), key=lambda i: (-without[i], str(kept[i])))
        count = max(1, len(kept) // AT_ONCE)
        while count:
            gone = {kept[i] for i in order[:count]}
            smaller = connect([n for n in kept if n not in gone])
            if faithfulness([smaller])[0] >= target:
                break
            count //= 2
        if not count:
            return kept
        kept = smaller
    return kept


def connected(
    nodes: Sequence[Node],
    weights: EdgeWeights,
    *,
    count: int,
    output: Node,
    inputs: Collection[Node],
) -> list[Node]:
    """At most `count` of `nodes`, the first before the later ones, all on paths to `output`.

    Each node brings the widest path (the one whose weakest edge is strongest) from `inputs` to
    it and from it to `output`, through others of `nodes`; one that has none, or whose path does
    not fit any more, is left out. Where there are no inputs a path to the output is enough.
    """
    graph = _graph(_among({*nodes, *inputs, output}, weights))
    onward, back = _widest(graph, [output]), _widest(graph.reverse(copy=False), inputs)
    chosen: dict[Node, None] = {}
    for node in nodes:
        if node not in onward or (inputs and node not in back):
            continue
        path = [*_walk(node, onward), *_walk(node, back)] if inputs else _walk(node, onward)
        wanted = dict.fromkeys(n for n in path if n not in chosen and n != output)
        wanted = {n: None for n in wanted if n not in inputs}
        if len(chosen) + len(wanted) <= count:
            chosen |= wanted
    return [node for node in nodes if node in chosen]


def kept_edges(
    nodes: Collection[Node], weights: EdgeWeights, *, floor: float
) -> dict[tuple[Node, Node], float]:
    """Edges among `nodes` of at least `floor` in size, and each node's strongest in and out."""
    inside = _among(set(nodes), weights)
    ranked = sorted(inside, key=lambda pair: (-abs(inside[pair]), str(pair[0]), str(pair[1])))
    kept, entered, left = set(), set(), set()
    for source, target in ranked:
        if abs(inside[source, target]) >= floor or source not in left or target not in entered:
            kept.add((source, target))
        left.add(source)
        entered.add(target)
    return {pair: weight for pair, weight in inside.items() if pair in kept}


def _among(nodes: Collection[Node], weights: EdgeWeights) -> EdgeWeights:
    return {(s, t): w for (s, t), w in weights.items() if w and s in nodes and t in nodes}


def _graph(weights: EdgeWeights) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_weighted_edges_from((s, t, w) for (s, t), w in weights.items() if w)
    return graph


def _widest(graph: nx.DiGraph, ends: Collection[Node]) -> dict[Node, Node | None]:
    """For each node that leads to one of `ends`, the next node on its widest path there."""
    width = {end: float("inf") for end in ends if end in graph}
    following: dict[Node, Node | None] = dict.fromkeys(width)
    for node in reversed(list(nx.lexicographical_topological_sort(graph, key=str))):
        if node in width:
            continue
        options = [
            (min(abs(weight), width[target]), str(target), target)
            for _, target, weight in graph.out_edges(node, data="weight")
            if target in width
        ]
        if options:
            width[node], _, following[node] = max(options)
    return following


def _walk(node: Node | None, following: Mapping[Node, Node | None]) -> list[Node]:
    path = []
    while node is not None:
        path.append(node)
        node = following[node]
    return path

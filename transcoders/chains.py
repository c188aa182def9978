"""The strongest chains of a weighted graph without cycles that lead to one node.

A chain begins where nothing leads on (`Fan`s say what leads into a node, nodes without one are
ends) and its weight is the product of the factors of its edges. Two things are found:

    which fans to ask for    asking may be costly: those of the nodes that the largest product of
                             factors leads on from, as many as a budget allows (`grow`)
    the strongest chains     of all that the fans that are known make, the largest by size, exactly:
                             a best-first search whose bound is exact, as the largest product that
                             leads on from each node is known beforehand (`strongest`)

Axes: `edges` into one node.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int
from numpy import ndarray

CONSTANT = -1
"The end that stands for what a node has whatever leads into it."
AT_ONCE = 64
"Fans that are asked for together."
_State = tuple[float, int, int, int, float, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Fan:
    """What leads into a node."""

    node: Int[ndarray, " edges"]
    "nodes, or `CONSTANT`"
    factor: Float64[ndarray, " edges"]
    way: Int[ndarray, " edges"]
    "which of several edges from the same node"


@dataclass(frozen=True)
class Chain:
    """One chain, from where it begins to the root."""

    nodes: tuple[int, ...]
    "of which the first may be `CONSTANT`, and the last is the root"
    ways: tuple[int, ...]
    "of each edge"
    weight: float


def grow(
    known: dict[int, Fan],
    size: int,
    budget: int,
    has_fan: Bool[ndarray, " nodes"],
    ask: Callable[[Sequence[int]], Mapping[int, Fan]],
    order: Callable[[int], int],
    *,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Add to `known` the fans of at most `budget` nodes below `size`, the most within reach first.

    Reach is the size of the largest product of factors on the way to the root, the node of `known`
    of highest `order`; what leads into a node has a lower one.
    """
    asked = 0
    while asked < budget:
        reach = _reach(known, size, order)
        reach[[node for node in known if node < size]] = 0
        reach[~has_fan] = 0
        best = np.argsort(-reach, kind="stable")[: min(AT_ONCE, budget - asked)]
        chosen = best[reach[best] > 0].tolist()
        if not chosen:
            break
        known.update(ask(chosen))
        asked += len(chosen)
        report(asked, budget)
    report(budget, budget)


def _reach(
    known: Mapping[int, Fan], size: int, order: Callable[[int], int]
) -> Float64[ndarray, " nodes"]:
    from_top = sorted(known, key=order, reverse=True)
    found = np.zeros(max([size, *(node + 1 for node in known)]) + 1)
    found[from_top[0]] = 1.0
    for node in from_top:
        if found[node]:
            fan = known[node]
            np.maximum.at(found, fan.node, found[node] * np.abs(fan.factor))
    return found[:size]


def strongest(
    known: Mapping[int, Fan], root: int, k: int, order: Callable[[int], int]
) -> list[Chain]:
    """The `k` strongest chains to `root` by the size of their weight, largest first.

    Nodes without a fan are ends. What leads into a node has a lower `order`. Edges of factor 0
    lead nowhere.
    """
    return list(_in_order(known, root, k, order))


def _in_order(
    known: Mapping[int, Fan], root: int, k: int, order: Callable[[int], int]
) -> Iterator[Chain]:
    fans = _sorted_fans(known, order)
    if root not in fans or not len(fans[root].bound):
        return
    # A state is an edge into `node` by rank, with what leads from there to the root.
    tie = count()
    first = (-float(fans[root].bound[0]), next(tie), root, 0, 1.0, (root,), ())
    heap: list[_State] = [first]
    found = 0
    while heap and found < k:
        _, _, node, rank, weight, nodes, ways = heappop(heap)
        fan = fans[node]
        if rank + 1 < len(fan.bound):
            bound = -abs(weight) * float(fan.bound[rank + 1])
            heappush(heap, (bound, next(tie), node, rank + 1, weight, nodes, ways))
        source, way = int(fan.fan.node[rank]), int(fan.fan.way[rank])
        weight = weight * float(fan.fan.factor[rank])
        nodes, ways = (source, *nodes), (way, *ways)
        below = fans.get(source)
        if below is None:
            found += 1
            yield Chain(nodes, ways, weight)
        elif len(below.bound):
            bound = -abs(weight) * float(below.bound[0])
            heappush(heap, (bound, next(tie), source, 0, weight, nodes, ways))


@dataclass(frozen=True)
class _Sorted:
    """A fan by the largest product that each of its edges leads on to."""

    fan: Fan
    bound: Float64[ndarray, " edges"]
    "falling, none 0"


def _sorted_fans(known: Mapping[int, Fan], order: Callable[[int], int]) -> dict[int, _Sorted]:
    largest = max([0, *known, *(int(fan.node.max(initial=0)) for fan in known.values())])
    bound = np.ones(largest + 2)  # the last one, at -1, is that of `CONSTANT`
    found = {}
    for node in sorted(known, key=order):
        fan = known[node]
        on = np.abs(fan.factor) * bound[fan.node]
        by_size = np.argsort(-on, kind="stable")
        by_size = by_size[on[by_size] > 0]
        found[node] = _Sorted(
            Fan(fan.node[by_size], fan.factor[by_size], fan.way[by_size]), on[by_size]
        )
        bound[node] = on[by_size[0]] if len(by_size) else 0.0
    return found


def summed(chains: Iterable[Chain]) -> dict[tuple[int, int], float]:
    """Each edge with the weight of all chains that pass it: none counts twice.

    A chain passes each of its edges once; those that begin alike pass the same edges, and part
    where they differ.
    """
    found: dict[tuple[int, int], float] = {}
    for chain in chains:
        for pair in pairwise(chain.nodes):
            found[pair] = found.get(pair, 0.0) + chain.weight
    return found

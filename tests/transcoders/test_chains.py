"""The strongest chains of all that there are, and what is asked for first reaches furthest."""

from itertools import pairwise
from math import prod

import numpy as np
import pytest

from transcoders.chains import CONSTANT, Chain, Fan, grow, strongest, summed

ROOT = 6
ALL = 10**6
CLOSE = {"rel": 1e-12}


def fan(*edges):
    """Of (node, factor) or (node, factor, way)."""
    node, factor, way = zip(*((*edge, 0)[:3] for edge in edges), strict=True)
    return Fan(np.array(node), np.array(factor, dtype=float), np.array(way))


def random_fans(seed):
    """Nodes 0 and 1 are ends; every other one has all before it, some twice, and the constant."""
    random = np.random.default_rng(seed)
    found = {}
    for node in range(2, ROOT + 1):
        ends = [*range(node), *range(0, node, 2), CONSTANT]
        ways = [*([0] * node), *([1] * len(range(0, node, 2))), 0]
        found[node] = Fan(np.array(ends), random.standard_normal(len(ends)), np.array(ways))
    return found


def every_chain(fans, node=ROOT, nodes=(ROOT,), ways=(), weight=1.0):
    """By plain recursion."""
    for source, factor, way in zip(*(x.tolist() for x in vars(fans[node]).values()), strict=True):
        found = (source, *nodes), (way, *ways), weight * factor
        if source in fans:
            yield from every_chain(fans, source, *found)
        elif factor:
            yield Chain(*found)


@pytest.mark.parametrize("seed", range(3))
def test_the_strongest_chains_are_those_of_all_that_there_are(seed):
    fans = random_fans(seed)
    expected = sorted(every_chain(fans), key=lambda chain: -abs(chain.weight))
    found = strongest(fans, ROOT, ALL, lambda node: node)
    assert len(found) == len(expected) > 100
    assert [c.weight for c in found] == pytest.approx([c.weight for c in expected], **CLOSE)
    assert {(c.nodes, c.ways) for c in found} == {(c.nodes, c.ways) for c in expected}
    assert strongest(fans, ROOT, 9, lambda node: node) == found[:9]
    assert min(c.weight for c in found) < 0 < max(c.weight for c in found)


def test_nodes_are_taken_in_the_order_that_is_told_and_not_by_their_number():
    fans = {5: fan((9, 2.0), (1, 7.0)), 9: fan((0, 3.0), (1, -4.0))}
    order = {0: 0, 1: 0, 9: 1, 5: 2}
    assert strongest(fans, 5, ALL, order.__getitem__) == [
        Chain((1, 9, 5), (0, 0), -8.0),
        Chain((1, 5), (0,), 7.0),
        Chain((0, 9, 5), (0, 0), 6.0),
    ]


def test_edges_of_factor_0_and_nodes_that_nothing_leads_into_begin_no_chain():
    fans = {3: fan((2, 5.0), (1, 0.0), (CONSTANT, 1.0)), 2: fan((0, 0.0))}
    assert strongest(fans, 3, ALL, lambda node: node) == [Chain((CONSTANT, 3), (0,), 1.0)]
    assert strongest({}, 3, ALL, lambda node: node) == []
    assert strongest(fans, 2, ALL, lambda node: node) == []


def test_an_edge_has_the_weight_of_all_chains_that_pass_it():
    fans = random_fans(4)
    found = summed(every_chain(fans))
    on = {node: 1.0 if node not in fans else 0.0 for node in (CONSTANT, *range(ROOT + 1))}
    for node in sorted(fans):
        on[node] = sum(on[s] * f for s, f in zip(fans[node].node, fans[node].factor, strict=True))
    into_root = sum(weight for (_, target), weight in found.items() if target == ROOT)
    assert into_root == pytest.approx(on[ROOT], **CLOSE)
    both = Chain((0, 2, 6), (0, 0), 3.0), Chain((1, 2, 6), (0, 1), -1.0)
    assert summed(both) == {(0, 2): 3.0, (1, 2): -1.0, (2, 6): 2.0}


def grown(fans, budget, *, has_fan=None, size=ROOT):
    """Which fans were asked for, in order, and what was reported."""
    known, asked, reports = {ROOT: fans[ROOT]}, [], []

    def ask(nodes):
        asked.extend(nodes)
        return {node: fans[node] for node in nodes}

    there = np.array([node in fans for node in range(size)]) if has_fan is None else has_fan
    grow(
        known, size, budget, there, ask, lambda node: node,
        report=lambda done, total: reports.append((done, total)),
    )  # fmt: skip
    assert set(known) == {ROOT, *asked}
    return asked, reports


@pytest.mark.parametrize("seed", range(3))
def test_what_is_asked_for_reaches_the_root_furthest(seed, small_chunks):
    """The reach of a node is the largest product on any way from it, one asked at a time."""
    small_chunks("transcoders.chains.AT_ONCE", 1)
    fans = random_fans(seed)
    asked, reports = grown(fans, ALL)
    known = {ROOT: fans[ROOT]}
    for node in asked:
        reach = {}
        for chain in every_chain(known):
            factor = prod(largest(known, *edge) for edge in pairwise(chain.nodes))
            reach[chain.nodes[0]] = max(reach.get(chain.nodes[0], 0.0), factor)
        open_ones = {n: r for n, r in reach.items() if n in fans}
        assert node == max(open_ones, key=open_ones.__getitem__)
        known[node] = fans[node]
    assert sorted(asked) == [2, 3, 4, 5]
    assert reports == [*((i, ALL) for i in range(1, 5)), (ALL, ALL)]


def largest(fans, source, target):
    """The size of the largest of the edges between two nodes."""
    return max(abs(fans[target].factor[fans[target].node == source]))


def test_no_more_fans_are_asked_for_than_the_budget_and_only_of_nodes_that_have_one():
    fans = {6: fan((5, 1.0), (4, -3.0), (3, 2.0), (0, 9.0), (1, 0.0)), 1: fan((0, 1.0))}
    fans |= {node: fan((0, 1.0)) for node in (3, 4, 5)}
    assert grown(fans, 0) == ([], [(0, 0)])
    assert grown(fans, 2)[0] == [4, 3]
    assert grown(fans, ALL)[0] == [4, 3, 5], "nothing leads on from 0, and 1 has factor 0"
    has_fan = np.array([False, False, False, False, True, True])
    assert grown(fans, ALL, has_fan=has_fan)[0] == [4, 5]
    assert grown(fans, ALL, size=4)[0] == [3]


def test_a_budget_ends_within_a_round(small_chunks):
    small_chunks("transcoders.chains.AT_ONCE", 2)
    fans = {6: fan((5, 1.0), (4, -3.0), (3, 2.0), (2, 0.5))}
    fans |= {node: fan((0, 0.1)) for node in range(2, 6)}
    asked, reports = grown(fans, 3)
    assert asked == [4, 3, 5]
    assert reports == [(2, 3), (3, 3), (3, 3)]


def test_a_way_through_a_node_that_was_asked_for_later_counts(small_chunks):
    """To 1 by way of 2 alone it is 1 x 0.4, by way of 4 and 2 it is 0.9 x 5 x 0.4."""
    small_chunks("transcoders.chains.AT_ONCE", 1)
    fans = {6: fan((2, 1.0), (4, 0.9), (3, 0.5)), 2: fan((1, 0.4)), 4: fan((2, -5.0))}
    fans |= {node: fan((0, 1.0)) for node in (1, 3)}
    assert grown(fans, ALL)[0] == [2, 4, 1, 3]

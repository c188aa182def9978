"""Which nodes a graph keeps, and where each of the others went."""

import pytest

from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.choice import SPARE, NodePool, choose, pool_of
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.prune import connected, share_of_influence
from circuits.graph import Node
from tests.circuits.discovery.test_prune import OUTPUT, TOKEN, layered

INPUTS = [TOKEN]


def chosen(pooled, weights, *, measure=None, considered=None, **settings):
    config = DiscoverConfig(**settings)
    pool = NodePool(pooled, considered or len(pooled), len(pooled))
    return choose(pool, INPUTS, OUTPUT, weights, config, measure)


def ranking_of(nodes):
    """Effects that fall from 1, tokens strongest of all."""
    effects = [(TOKEN, 9.0), *((node, 1.0 - i / 100) for i, node in enumerate(nodes))]
    return NodeEffects.listed(["embed", *{n.site: 0 for n in nodes}], effects)


def test_the_pool_is_the_strongest_with_some_to_spare_and_no_tokens():
    nodes = [Node("mlp_out.0", i, 0) for i in range(60)]
    pool = pool_of(ranking_of(nodes), DiscoverConfig(nodes=10))
    assert pool == NodePool(nodes[: 10 + SPARE], 10 + SPARE, 60)
    everything = pool_of(ranking_of(nodes), DiscoverConfig(nodes=100))
    assert everything == NodePool(nodes, 60, 60)


@pytest.mark.parametrize("threshold", [0.05, 0.905, 2.0])
def test_a_threshold_takes_from_the_strongest_only(threshold):
    nodes = [Node("mlp_out.0", i, 0) for i in range(60)]
    pool = pool_of(ranking_of(nodes), DiscoverConfig(nodes=10, threshold=threshold))
    assert pool.nodes == [n for i, n in enumerate(nodes[:30]) if 1 - i / 100 >= threshold]
    assert (pool.considered, pool.changed) == (30, 60)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "settings",
    [{}, {"influence": 0.6}, {"faithfulness": 0.5}, {"threshold": 0.1}],
    ids=lambda s: "".join(s) or "plain",
)
def test_every_node_that_was_considered_is_kept_or_counted_once(seed, settings):
    nodes, weights = layered(seed, share=0.35)
    core = set(nodes[:5])

    def measure(circuits):
        return [len(core & set(c)) / len(core) for c in circuits]

    kept, record = chosen(nodes, weights, measure=measure, considered=30, nodes=12, **settings)
    assert len(kept) == record.kept == len(set(kept))
    assert set(kept) <= set(nodes)
    assert record.left_out.get("below_threshold") == 30 - len(nodes)
    assert record.kept + sum(record.left_out.values()) == record.considered == 30
    assert record.unconnected == 0


def test_each_reason_is_the_one_that_holds():
    a, b, c, d, e = (Node("resid_post.1", i, 0) for i in range(5))
    weights = {
        (TOKEN, a): 1.0, (a, OUTPUT): 1.0,
        (TOKEN, b): 1.0, (b, OUTPUT): 0.1,
        (TOKEN, c): 1.0,
        (d, OUTPUT): 1.0,
    }  # fmt: skip
    kept, record = chosen([c, d, a, e, b], weights, nodes=1)
    assert kept == [a]
    assert record.left_out == {"no_path_to_output": 2, "no_path_from_tokens": 1, "no_room": 1}
    kept, record = chosen([c, d, a, e, b], weights, nodes=5, influence=0.4)
    assert kept == [a]
    assert record.left_out["little_influence"] == 1
    kept, record = chosen([c, d, a, e, b], weights, nodes=5, faithfulness=0.5,
                          measure=lambda circuits: [float(a in x) for x in circuits])  # fmt: skip
    assert kept == [a]
    assert record.left_out["eliminated"] == 1
    assert record.faithfulness == (0.5, 1.0)


@pytest.mark.parametrize("share", [0.2, 0.7, 1.0])
def test_the_share_of_the_influence_that_was_reached_is_said(share):
    nodes, weights = layered(1)
    kept, record = chosen(nodes, weights, nodes=len(nodes), influence=share)
    asked, reached = record.influence
    assert asked == share
    assert reached == share_of_influence(kept, nodes, weights, OUTPUT)
    joined = connected(nodes, weights, count=len(nodes), output=OUTPUT, inputs=INPUTS)
    whole = share_of_influence(joined, nodes, weights, OUTPUT)
    assert reached >= share * whole - 1e-9


def test_a_faithfulness_out_of_reach_keeps_all_that_is_connected():
    nodes, weights = layered(2)
    joined = connected(nodes, weights, count=10, output=OUTPUT, inputs=INPUTS)
    kept, record = chosen(nodes, weights, nodes=10, faithfulness=0.9,
                          measure=lambda circuits: [0.4 for _ in circuits])  # fmt: skip
    assert kept == joined
    assert record.faithfulness == (0.9, 0.4)


@pytest.mark.parametrize("settings", [{}, {"influence": 0.9}, {"faithfulness": 0.9}])
def test_where_nothing_has_a_path_the_strongest_stand_unconnected(settings):
    nodes, _ = layered()

    def never(circuits):
        raise AssertionError("there is nothing to measure")

    kept, record = chosen(nodes, {}, nodes=4, measure=never, **settings)
    assert kept == nodes[:4]
    assert record.unconnected == 4
    assert record.left_out == {"no_path_to_output": len(nodes) - 4}
    assert record.faithfulness is None

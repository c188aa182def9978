"""Choosing nodes and edges: what is kept hangs together and holds what was asked for."""

import random

import networkx as nx
import pytest
import torch

from circuits.discovery.prune import (
    above_threshold,
    by_faithfulness,
    by_influence,
    connected,
    influence,
    kept_edges,
)
from circuits.graph import Node

OUTPUT, TOKEN = Node("logit", "logit"), Node("embed", "token", 1)


def layered(seed=0, width=6, layers=4, share=0.6):
    """Random edges from each layer to the next, from a token and to the output."""
    draw = random.Random(seed)
    rows = [[Node(f"resid_post.{n}", i, 0) for i in range(width)] for n in range(layers)]
    weights = {}
    for below, above in zip([[TOKEN], *rows], [*rows, [OUTPUT]], strict=True):
        for source in below:
            for target in above:
                if draw.random() < share:
                    weights[source, target] = draw.uniform(-1, 1)
    nodes = [node for row in rows for node in row]
    draw.shuffle(nodes)
    return nodes, weights


def graph_of(nodes, weights):
    graph = nx.DiGraph()
    graph.add_nodes_from([*nodes, TOKEN, OUTPUT])
    graph.add_edges_from(pair for pair in weights if set(pair) <= set(graph))
    return graph


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [4, 10, 24])
def test_every_kept_node_lies_between_the_tokens_and_the_output(seed, count):
    nodes, weights = layered(seed)
    kept = connected(nodes, weights, count=count, output=OUTPUT, inputs=[TOKEN])
    assert 0 < len(kept) <= count
    graph = graph_of(kept, weights)
    assert set(kept) <= nx.ancestors(graph, OUTPUT)
    assert set(kept) <= nx.descendants(graph, TOKEN)
    assert kept == [node for node in nodes if node in set(kept)]


def test_the_strongest_node_comes_with_its_widest_path():
    a, b, c, d = (Node("resid_post.1", i, 0) for i in range(4))
    narrow = {(TOKEN, a): 9.0, (a, b): 0.1, (b, OUTPUT): 9.0}
    wide = {(a, c): -0.5, (c, OUTPUT): 0.4, (TOKEN, d): 1.0, (d, OUTPUT): 1.0}
    kept = connected([a, d, b, c], narrow | wide, count=3, output=OUTPUT, inputs=[TOKEN])
    assert kept == [a, d, c]


def test_without_inputs_a_path_to_the_output_is_enough():
    a, b = Node("resid_post.1", 0, 0), Node("resid_post.1", 1, 0)
    weights = {(a, OUTPUT): 1.0}
    assert connected([b, a], weights, count=2, output=OUTPUT, inputs=[]) == [a]


def test_where_nothing_has_a_path_nothing_is_connected():
    nodes, _ = layered()
    assert connected(nodes, {}, count=3, output=OUTPUT, inputs=[TOKEN]) == []


@pytest.mark.parametrize("floor", [0.0, 0.5, 2.0])
def test_an_edge_is_kept_when_it_is_strong_or_all_that_a_node_has(floor):
    nodes, weights = layered(3)
    everything = [*nodes, TOKEN, OUTPUT]
    kept = kept_edges(everything, weights, floor=floor)
    for (source, target), weight in weights.items():
        best_out = max(abs(w) for (s, _), w in weights.items() if s == source)
        best_in = max(abs(w) for (_, t), w in weights.items() if t == target)
        strong = abs(weight) >= floor or abs(weight) in (best_out, best_in)
        assert ((source, target) in kept) == strong
    shuffled = dict(random.Random(1).sample(list(weights.items()), len(weights)))
    assert kept_edges(everything, shuffled, floor=floor) == kept


def test_influence_is_the_sum_over_all_paths():
    nodes, weights = layered(2)
    names = [TOKEN, *nodes, OUTPUT]
    A = torch.zeros(len(names), len(names), dtype=torch.float64)
    for (source, target), weight in weights.items():
        A[names.index(target), names.index(source)] = abs(weight)
    A = A / A.sum(1, keepdim=True).clamp(min=1e-12)
    whole = torch.linalg.inv(torch.eye(len(names), dtype=torch.float64) - A)
    found = influence(weights, OUTPUT)
    for i, name in enumerate(names):
        assert found.get(name, 0.0) == pytest.approx(float(whole[-1, i]), abs=1e-12)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_the_fewest_nodes_with_a_share_of_the_influence(share):
    nodes, weights = layered(4)
    found = influence(weights, OUTPUT)
    kept = by_influence(nodes, weights, OUTPUT, share)
    total = sum(found.get(n, 0.0) for n in nodes)
    held = sum(found[n] for n in kept)
    assert held >= share * total - 1e-9
    if kept:
        assert held - min(found[n] for n in kept) < share * total + 1e-9


def test_a_threshold_is_of_the_size_of_the_effect():
    nodes, _ = layered()
    ranking = list(zip(nodes, [3.0, -2.0, 1.0, -0.5], strict=False))
    assert above_threshold(ranking, 1.0) == nodes[:3]


@pytest.mark.parametrize("needed", [1, 4, 9])
def test_elimination_finds_the_nodes_that_are_needed(needed):
    """Faithfulness is the share of the needed nodes, less a little for each that disturbs."""
    nodes, _ = layered(5)
    core = set(random.Random(0).sample(nodes, needed))

    def measure(circuits):
        return [len(core & set(c)) / needed - 0.001 * len(set(c) - core) for c in circuits]

    assert set(by_faithfulness(nodes, measure, 0.9, list)) == core
    half = by_faithfulness(nodes, measure, 0.5, list)
    assert measure([half])[0] >= 0.5
    assert len(half) == 1 or all(measure([[n for n in half if n != x]])[0] < 0.5 for x in half)
    assert by_faithfulness(nodes, measure, 1.5, list) == nodes


@pytest.mark.parametrize("seed", range(4))
def test_what_elimination_leaves_is_connected_and_as_faithful_as_asked(seed):
    """The measure prefers nodes at random, so that what is needed would not hang together."""
    nodes, weights = layered(seed, share=0.35)
    core = set(random.Random(seed).sample(nodes, 6))

    def measure(circuits):
        return [len(core & set(c)) / len(core) for c in circuits]

    def connect(some):
        return connected(some, weights, count=20, output=OUTPUT, inputs=[TOKEN])

    target = 0.6 * measure([connect(nodes)])[0]
    kept = by_faithfulness(nodes, measure, target, connect)
    assert kept == connect(kept)
    assert measure([kept])[0] >= target
    assert all(measure([connect([n for n in kept if n != x])])[0] < target for x in kept)

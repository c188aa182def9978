"""Paths: all of them add up to the target, the strongest are the strongest of all there are."""

from itertools import pairwise

import networkx as nx
import pytest
import torch

from hooked_qwen.nodes import Node
from tests.transcoders.toys import FAMILIES, TOKENS, cross_layer_suite, replaced, suite_of, toy_of
from transcoders.attention import edge_by_head
from transcoders.paths import Path, find_paths, node_of
from transcoders.replacement import Targets, replace_mlps
from transcoders.sources import ERROR, FEATURE, TOKEN

ALL = 10**9
CLOSE = {"rel": 1e-9, "abs": 1e-9}


@pytest.fixture(scope="module")
def model():
    """Four features on at each token of a short prompt: thousands of paths."""
    return replace_mlps(toy_of("qwen3"), suite_of([0, 1, 2], skips=[1]), TOKENS[:4])


def outputs(model, n=1):
    generator = torch.Generator().manual_seed(2)
    d = model.recorded.embed.shape[1]
    return model.last_token(torch.randn(n, d, generator=generator, dtype=torch.float64))


def every_path(model, targets):
    """All paths of the first target by plain recursion over the exact edges."""
    inputs = {}

    def into(feature):
        if feature not in inputs:
            found = model.inputs(model.features(torch.tensor([feature])))
            inputs[feature] = found.weight[:, 0].tolist(), float(found.bias)
        return inputs[feature]

    def follow(sources, weights, constant, weight, unit):
        yield sources, "constant", weight * constant / unit
        for source, edge in enumerate(weights):
            if edge == 0:
                continue
            there, kind = weight * edge / unit, int(model.sources.kind[source])
            if kind == FEATURE:
                activation = float(model.sources.activation[source])
                bias = activation - sum(into(source)[0])
                yield from follow((source, *sources), into(source)[0], bias, there, activation)
            else:
                yield (source, *sources), "token" if kind == TOKEN else "error", there

    first = model.inputs(targets)
    yield from follow((), first.weight[:, 0].tolist(), float(first.bias[0]), 1.0, 1.0)


def test_a_large_budget_is_an_exhaustive_search(model):
    targets = outputs(model)
    expected = sorted(every_path(model, targets), key=lambda path: -abs(path[2]))
    found = find_paths(model, targets, ALL, traced=ALL)
    assert len(found) == len(expected) > 3000
    assert [p.weight for p in found] == pytest.approx([w for *_, w in expected], **CLOSE)
    assert {(p.sources, p.begins) for p in found} == {(s, b) for s, b, _ in expected}
    few = find_paths(model, targets, 40, traced=ALL)
    assert few.found == found.found[:40]


def test_all_paths_add_up_to_the_target_whatever_was_traced(model):
    targets = outputs(model)
    value = float((model.read(targets.site)[targets.position] * targets.vectors).sum())
    for traced in (0, 3, ALL):
        found = find_paths(model, targets, ALL, traced=traced)
        assert found.total == pytest.approx(value, rel=1e-8)
        assert found.weight == pytest.approx(value, rel=1e-8)
        assert found.traced <= traced
        assert ("not traced" in {p.begins for p in found}) == (traced < ALL)
    feature = int((model.sources.kind == FEATURE).nonzero()[-1])
    of_feature = find_paths(model, model.features(torch.tensor([feature])), ALL, traced=ALL)
    activation = float(model.sources.activation[feature])
    pre_activation = float(model.pre_activation[feature])
    assert of_feature.weight == pytest.approx(pre_activation, rel=1e-8)
    assert pre_activation == pytest.approx(activation, rel=1e-4)


def test_what_is_traced_first_leads_on_the_most(model):
    """With twelve of 48 features traced the strongest path of all is there already."""
    targets = outputs(model)
    best = next(p for p in find_paths(model, targets, 50, traced=ALL) if len(p.sources) > 1)
    some = find_paths(model, targets, ALL, traced=12)
    assert best.sources in {p.sources for p in some}


def test_a_merged_graph_of_all_paths_has_the_exact_edges_times_the_slopes(model):
    """No prefix counts twice: an edge's share is what goes through it to the target, once."""
    targets = outputs(model)
    graph = find_paths(model, targets, ALL, traced=ALL).graph([Node("logit", "out")])
    slope = model.totals(targets).slope
    number = {
        node_of(model, i): i for i in range(len(model.sources)) if model.sources.kind[i] <= ERROR
    }
    checked = 0
    for source, target, paths in graph.edges(data="paths"):
        if target.kind == "logit":
            exact = model.inputs(targets).weight[number[source], 0]
        else:
            inputs = model.inputs(model.features(torch.tensor([number[target]])))
            exact = inputs.weight[number[source], 0] * slope[number[target]]
        assert paths == pytest.approx(float(exact), rel=1e-6, abs=1e-9)
        checked += 1
    assert checked > 100
    assert nx.is_directed_acyclic_graph(graph)
    for node, data in graph.nodes(data=True):
        if node.kind == "feature":
            into = sum(weight for *_, weight in graph.in_edges(node, data="paths"))
            out = sum(weight for *_, weight in graph.out_edges(node, data="paths"))
            assert into + data["constant"] == pytest.approx(out, rel=1e-8, abs=1e-9)
            assert data["paths"] == pytest.approx(out, rel=1e-8, abs=1e-9)


def test_a_graph_of_some_paths_counts_what_they_share_once_for_each(model):
    found = find_paths(model, outputs(model), 60, traced=ALL)
    graph = found.graph([Node("logit", "out")])
    for source, target, weight in graph.edges(data="paths"):
        through = []
        for path in found:
            nodes = [*found.nodes(path), Node("logit", "out")]
            if (source, target) in pairwise(nodes):
                through.append(path.weight)
        assert through
        assert weight == pytest.approx(sum(through))
    assert sum(w for *_, w in graph.in_edges(Node("logit", "out"), data="paths")) == pytest.approx(
        sum(p.weight for p in found if p.sources)
    )


def test_several_targets_count_by_their_shares(model):
    targets = outputs(model, 2)
    both = find_paths(model, targets, ALL, traced=ALL, shares=[0.25, 0.75])
    alone = [
        find_paths(
            model,
            Targets(
                targets.site, targets.vectors[[i]], targets.position[[i]], targets.constant[[i]]
            ),
            ALL,
            traced=ALL,
        )
        for i in (0, 1)
    ]
    assert len(both) == sum(map(len, alone))
    for i, share in enumerate((0.25, 0.75)):
        weights = sorted(p.weight / share for p in both if p.target == i)
        assert weights == pytest.approx(sorted(p.weight for p in alone[i]), **CLOSE)
    assert both.total == pytest.approx(0.25 * alone[0].total + 0.75 * alone[1].total)


def test_paths_by_head_are_those_together_taken_apart():
    model = replace_mlps(toy_of("qwen3"), suite_of([0, 2], skips=[0]), TOKENS[:2])
    targets = outputs(model)
    together = find_paths(model, targets, ALL, traced=ALL)
    by_head = find_paths(model, targets, ALL, traced=ALL, ways="by head")
    assert by_head.weight == pytest.approx(together.weight, rel=1e-6)
    sums: dict[tuple, float] = {}
    for path in by_head:
        key = (path.sources, path.begins)
        sums[key] = sums.get(key, 0.0) + path.weight
    for path in together:
        assert sums[path.sources, path.begins] == pytest.approx(path.weight, rel=1e-5, abs=1e-9)


def test_the_ways_of_a_step_are_those_of_the_edge(model):
    feature = int((model.sources.kind == FEATURE).nonzero()[-1])
    target = model.features(torch.tensor([feature]))
    found = find_paths(model, target, ALL, traced=0, ways="by head")
    for source in (0, 5, 20):
        edge = edge_by_head(model, source, feature)
        ways = {p.ways[0]: p.weight for p in found if p.sources == (source,)}
        assert ways.pop("direct", 0.0) == pytest.approx(edge.direct, **CLOSE)
        assert ways.pop("rest", 0.0) == pytest.approx(edge.rest, **CLOSE)
        heads = {head: weight for head, weight in edge.heads.items() if weight}
        assert ways == pytest.approx(heads, **CLOSE)


@pytest.mark.parametrize("family", FAMILIES)
def test_paths_add_up_in_every_family(family):
    model = replaced(family, suite_of([0, 2]))
    found = find_paths(model, outputs(model), ALL, traced=6)
    assert found.weight == pytest.approx(found.total, rel=1e-8)
    value = (model.read(outputs(model).site)[-1] * outputs(model).vectors[0]).sum()
    assert found.total == pytest.approx(float(value), rel=1e-8)


def test_cross_layer_features_are_on_paths_by_all_that_they_write():
    model = replace_mlps(toy_of("qwen3"), cross_layer_suite(), TOKENS[:3])
    found = find_paths(model, outputs(model), ALL, traced=ALL)
    assert found.weight == pytest.approx(found.total, rel=1e-8)
    assert any(isinstance(p, Path) and len(p.sources) == 3 for p in found)

"""Edges into a node and its bias are its pre-activation; over prompts they are means."""

import numpy as np
import pytest
import torch

from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.linear_edges import members
from circuits.discovery.replaced_prompts import ReplacedPrompts
from circuits.discovery.replacement import discover_replacement
from hooked_qwen.sites import Site
from saes.suite import Suite
from tests.circuits.discovery.replaced import (
    EXACT,
    analysis,
    check_sums,
    graph_of,
    rows_of,
    speaking,
    unanswered,
)
from tests.transcoders.toys import cross_layer_suite


@pytest.mark.parametrize("positions", ["keep", "end", "sum"])
@pytest.mark.parametrize("rows", [[0], [0, 1, 2]])
def test_incoming_weights_and_bias_are_the_pre_activation(prompts, positions, rows):
    check_sums(graph_of(rows_of(prompts, rows), positions=positions))


def test_so_they_are_of_cross_layer_transcoders_and_several_answers(one):
    suite = Suite(cross_layer_suite(), {})
    model = speaking("qwen2")
    graph = graph_of(unanswered(one, model), suite, model)
    assert {n.site for n in graph if n.kind == "feature"} == {"clt.0", "mlp_out.1"}
    check_sums(graph)


def _nodes(asked, opened):
    names = ReplacedPrompts(asked).names
    return NodeEffects(names, opened.key, torch.zeros(len(opened.key))).nodes()


def test_edges_are_autograd_through_the_frozen_maps(one):
    """Of one forward pass of all sources, each with a factor of its own."""
    asked = analysis(one)
    graph = discover_replacement(asked).graph
    (opened,) = ReplacedPrompts(asked)
    model, sources = opened.model, opened.model.sources
    factor = torch.ones(len(sources), dtype=torch.float64, requires_grad=True)
    writes = {Site("embed"): (model.recorded.embed * factor[: model.n_tokens, None]).unsqueeze(1)}
    for layer, written in enumerate(sources.layers):
        site = Site("mlp_out", layer)
        rows = written.rows(site, model.dictionaries) * factor[written.source, None]
        whole = torch.zeros_like(model.recorded.embed).index_add(0, written.position, rows)
        writes[site] = whole.unsqueeze(1)
    pushed = model.frozen.push(writes)
    node = {int(key): n for key, n in zip(opened.key, _nodes(asked, opened), strict=True)}
    checked = 0
    for t in range(len(sources)):
        if sources.dictionary[t] < 0:
            continue
        of = model.dictionaries[int(sources.dictionary[t])]
        read = pushed.mlp_in[of.source.layer][sources.position[t], 0]
        pre = read @ of.W_enc[sources.feature[t]]
        (grad,) = torch.autograd.grad(pre, factor, retain_graph=True)
        for s in range(len(sources)):
            if int(opened.key[s]) < 0:
                continue
            ends = node[int(opened.key[s])], node[int(opened.key[t])]
            found = graph.edges[ends]["weight"] if graph.has_edge(*ends) else 0.0
            assert found == pytest.approx(float(grad[s]), abs=EXACT)
            checked += found != 0
    outputs = graph.in_degree(next(n for n in graph if n.kind == "logit"))
    assert checked == graph.number_of_edges() - outputs


def test_a_prompt_set_has_means_and_the_spread_of_each_edge(prompts):
    together = graph_of(prompts)
    each = [graph_of(rows_of(prompts, [i])) for i in range(3)]
    ends = {edge for graph in each for edge in graph.edges}
    assert {(s, t) for s, t in together.edges if t.kind != "logit"} == {
        (s, t) for s, t in ends if t.kind != "logit"
    }
    for s, t in ends:
        if t.kind == "logit":
            continue
        weights = [g.edges.get((s, t), {"weight": 0.0})["weight"] for g in each]
        found = together.edges[s, t]
        assert found["weight"] == pytest.approx(np.mean(weights), rel=1e-9, abs=1e-12)
        assert found["spread"] == pytest.approx(np.std(weights, ddof=1), rel=1e-5, abs=1e-7)
    for node in together:
        if node.kind != "logit":
            values = [g.nodes[node]["influence"] if node in g else 0.0 for g in each]
            assert together.nodes[node]["influence"] == pytest.approx(np.mean(values), rel=1e-5)
    assert "spread" not in next(iter(each[0].edges(data=True)))[2]


def test_summed_positions_are_one_node_with_the_edges_of_all(one):
    apart, summed = graph_of(one), graph_of(one, positions="sum")
    expected: dict = {}
    for s, t, weight in apart.edges(data="weight"):
        pair = (s._replace(position=None), t._replace(position=None))
        expected[pair] = expected.get(pair, 0.0) + weight
    assert set(summed.edges) <= set(expected)
    for pair, weight in expected.items():
        found = summed.edges.get(pair, {"weight": 0.0})["weight"]
        assert found == pytest.approx(weight, abs=1e-9)


def test_members_are_the_sources_that_are_known_and_their_ranks():
    known, key = torch.tensor([2, 5, 9]), torch.tensor([9, -1, 5, 7, 9, 2])
    member, rank = members(known, key)
    assert member.tolist() == [0, 2, 4, 5]
    assert rank.tolist() == [2, 1, 2, 0]

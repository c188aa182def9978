"""A run of some nodes and edges alone."""

import itertools

import pytest
import torch

from circuits.ablation.edge_circuits import OUTPUT, EdgeCircuit, possible_edges
from circuits.ablation.faithfulness import metric_with
from circuits.ablation.restricted_run import restricted_metric
from circuits.graph import Node
from hooked_qwen.sites import Site
from saes.nodes import NodeSet
from saes.suite import Suite
from tests.circuits.ablation.test_edge_circuits import linear_dictionary, linear_model, on
from tests.toys import (
    analysis_of,
    full_suite,
    shared_toy,
    toy_prompts,
    toy_suite,
)


def circuit_of(analysis, sites, positions, edges=None):
    nodes = [n for site in sites for n in on(analysis, site, positions, n=1)]
    nodes += [Node(site, "error", p) for site in sites[::2] for p in positions]
    nodes += [Node("embed", "token", p) for p in positions]
    every = possible_edges(analysis.suite, analysis.metric, nodes)
    return EdgeCircuit(tuple(nodes), frozenset(every if edges is None else edges(every)))


@pytest.fixture(scope="module")
def model():
    return shared_toy()


CASES = [
    (full_suite, "keep", "patch", "patch"),
    (full_suite, "keep", "patch", "mean"),
    (full_suite, "keep", "zero", "zero"),
    (full_suite, "sum", "patch", "mean"),
    (lambda: toy_suite("mlp_out.0", "attn_out.1", "mlp_in.2-mlp_out.2"), "keep", "patch", "mean"),
]


@pytest.mark.parametrize(("suite", "positions", "reference", "to"), CASES)
def test_with_every_edge_it_is_the_nodes_alone(model, suite, positions, reference, to):
    analysis = analysis_of(
        model, suite(), toy_prompts(2), positions=positions, reference=reference, batch_size=1
    )
    at = (None,) if positions == "sum" else (1, 5)
    circuit = circuit_of(analysis, list(analysis.suite), at)
    found = restricted_metric(analysis, circuit, to)
    inner = [n for n in circuit.nodes if n.kind != "token"]
    expected = metric_with(analysis, NodeSet.of(inner), to)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    none = restricted_metric(analysis, EdgeCircuit(circuit.nodes, frozenset()), to)
    assert not torch.allclose(none, found, atol=1e-3)
    if not any(n.kind == "token" for n in circuit.nodes) or "resid_post.2" in analysis.suite:
        # The last stream is all that the output reads: without edges everything is ablated.
        empty = metric_with(analysis, NodeSet.of([]), to)
        torch.testing.assert_close(none, empty, atol=1e-6, rtol=0)


def test_norm_outliers_that_stay_send_on_what_arrives(model):
    """Dictionaries of huge decoders make outliers of some tokens, which no ablation touches."""
    prompts = toy_prompts(3)
    embed = model.original_model.model.embed_tokens.weight
    first = int(prompts.clean.tokens[0, 0])
    saved = embed.data.clone()
    embed.data[first] *= 300
    try:
        analysis = analysis_of(model, full_suite(), prompts, batch_size=3, reference="zero")
        assert any(o.any() for o in analysis.states[0].outlier.values())
        circuit = circuit_of(analysis, list(analysis.suite), (1, 5))
        found = restricted_metric(analysis, circuit, "zero")
        inner = [n for n in circuit.nodes if n.kind != "token"]
        expected = metric_with(analysis, NodeSet.of(inner), "zero")
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    finally:
        embed.data = saved


@pytest.fixture(scope="module")
def linear():
    sites = [Site(kind, layer) for layer in (0, 1) for kind in ("mlp_out", "resid_post")]
    suite = Suite({s: linear_dictionary(s, i) for i, s in enumerate(sites)}, {})
    return analysis_of(linear_model(), suite, toy_prompts(2), batch_size=2)


def test_the_metric_reads_the_nodes_with_an_edge_to_it_and_no_others(linear):
    nodes = tuple(Node("resid_post.1", i, 5) for i in (1, 4, 7))
    every = frozenset((n, OUTPUT) for n in nodes)
    for kept in itertools.chain.from_iterable(itertools.combinations(nodes, k) for k in range(4)):
        edges = frozenset((n, OUTPUT) for n in kept)
        found = restricted_metric(linear, EdgeCircuit(nodes, edges), "patch")
        # Other nodes of the graph get all they need: only what the output sees is left.
        expected = metric_with(linear, NodeSet.of(kept), "patch")
        torch.testing.assert_close(found, expected, atol=1e-10, rtol=0)
    assert every

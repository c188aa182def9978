"""The model restricted to nodes and edges, against the nodes alone, against plain hooks, by law."""

import networkx as nx
import pytest
import torch

from circuits.ablation.edge_circuits import OUTPUT, EdgeCircuit, possible_edges
from circuits.ablation.faithfulness import metric_with
from circuits.ablation.restricted_run import restricted, restricted_metric
from circuits.graph import Node
from hooked_qwen.hooks import intervene
from hooked_qwen.load import hook
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.nodes import NodeSet
from saes.suite import Suite
from tests.toys import (
    SIZES,
    analysis_of,
    full_suite,
    shared_toy,
    toy_hf,
    toy_prompts,
    toy_suite,
)


def on(analysis, site, positions, n=2):
    """Features of a site that change most between clean and patch, at each position."""
    (state, *_) = analysis.states
    change = state.features[site].change.dense().abs()
    return [
        Node(site, int(i), p)
        for p in positions
        for i in change[:, slice(None) if p is None else [p]].sum((0, 1)).topk(n).indices
    ]


@pytest.fixture(scope="module")
def model():
    return shared_toy()


class Ones(torch.nn.Module):
    def forward(self, x):
        return torch.ones_like(x)


def linear_model():
    """Qwen's code with norms, the gates and the softmax taken out: all that is left is linear."""
    hf = toy_hf()
    for name, module in hf.named_modules():
        if name.endswith("norm") and "self_attn" not in name and hasattr(module, "weight"):
            module.forward = lambda x: x
    for layer in hf.model.layers:
        layer.mlp.act_fn = Ones()
        # Attention is uniform: of as many tokens as a power of two its shares have no rounding.
        layer.self_attn.q_proj.weight.data.zero_()
    return hook(hf, name="linear")


def linear_dictionary(site, seed):
    """Every feature of either sign: no competition, no threshold."""
    generator = torch.Generator().manual_seed(seed)
    d, width = SIZES["hidden_size"], 12

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / d**0.5

    spec = DictionarySpec(source=site, target=site, k=width, signed=True)
    weights = {"W_enc": draw(width, d), "b_enc": draw(width), "W_dec": draw(width, d)}
    return SparseDictionary(spec, weights | {"b_dec": draw(d)})


@pytest.fixture(scope="module")
def linear():
    sites = [Site(kind, layer) for layer in (0, 1) for kind in ("mlp_out", "resid_post")]
    suite = Suite({s: linear_dictionary(s, i) for i, s in enumerate(sites)}, {})
    return analysis_of(linear_model(), suite, toy_prompts(2), batch_size=2)


def values(analysis, circuit, to="patch"):
    return restricted(analysis, analysis.states[0], circuit, to)


def test_cutting_an_edge_takes_exactly_its_contribution_from_the_target(linear):
    """d(all edges) - d(without u -> d) = (a_u - b_u) W_dec_u J W_enc_d, J along direct paths."""
    nodes = tuple(Node(str(s), i, p) for s in linear.suite.writes for i in (1,) for p in (1, 3))
    every = possible_edges(linear.suite, linear.metric, nodes)
    whole = values(linear, EdgeCircuit(nodes, frozenset(every)))
    alone = metric_with(linear, NodeSet.of(nodes), "patch")
    torch.testing.assert_close(whole.metric.double(), alone, atol=1e-10, rtol=0)
    inner = [(u, d) for u, d in every if d != OUTPUT and u.site != "mlp_out.0"]
    assert len(inner) == 9
    for u, d in inner:
        cut = values(linear, EdgeCircuit(nodes, frozenset(every) - {(u, d)}))
        arrives = direct(linear, u, d)
        carried = whole.change[u][:, u.position] * (arrives @ linear.suite[d.site].W_enc[d.feature])
        gap = whole.change[d] - cut.change[d]
        torch.testing.assert_close(gap[:, d.position], carried, atol=1e-10, rtol=0)
        if u.site == "resid_post.0":
            assert carried.abs().max() > 1e-6
        for other in nodes:
            if Site.parse(other.site) <= Site.parse(d.site) and other != d:
                torch.testing.assert_close(whole.change[other], cut.change[other])


def direct(linear, u, d):
    """What one unit of `u` is by the time it arrives where `d` reads, by the weights alone."""
    W_dec = linear.suite[u.site].W_dec[u.feature]
    here = W_dec * (u.position == d.position)
    if u.site == "mlp_out.1":
        return here
    layer = linear.model.original_model.model.layers[1]
    attention, mlp = layer.self_attn, layer.mlp
    value = (attention.v_proj.weight @ W_dec).view(2, 1, 8).expand(2, 2, 8).flatten()
    middle = here + attention.o_proj.weight @ value / (d.position + 1)
    if d.site == "mlp_out.1":
        return mlp.down_proj.weight @ (mlp.up_proj.weight @ middle)
    # To the stream: past the MLP, whose own output is cut by its dictionary.
    return middle


def test_a_cut_edge_by_plain_hooks(model):
    """One feature into another's layer: the reader runs on a stream of its own."""
    analysis = analysis_of(model, toy_suite("resid_post.0", "resid_post.1"), toy_prompts(2),
                           batch_size=2)  # fmt: skip
    (state,), suite = analysis.states, analysis.suite
    (u, v), (d, *_) = on(analysis, "resid_post.0", (None,)), on(analysis, "resid_post.1", (None,))
    circuit = EdgeCircuit((u, v, d), frozenset({(u, d), (d, OUTPUT)}))
    tokens = analysis.prompts.clean.tokens
    a, b = Site.parse("resid_post.0"), Site.parse("resid_post.1")
    f, patch = state.features["resid_post.0"], state.values
    one = f.f.dense()[..., u.feature] - f.reference.dense()[..., u.feature]
    moved = patch[a] + state.tensor_change(suite, a) + one.unsqueeze(-1) * suite[str(a)].W_dec[u[1]]
    seen = {}

    def arrives(x):
        seen["d"] = suite[str(b)].encode(x).dense()[..., d.feature]
        reference = state.features["resid_post.1"].reference.dense()[..., d.feature]
        gap = (seen["d"] - reference).unsqueeze(-1)
        return state.values[b] + state.tensor_change(suite, b) + gap * suite[str(b)].W_dec[d[1]]

    with intervene(model, {a: lambda x: moved, b: arrives}), torch.no_grad():
        logits = model(tokens)[:, -1]
    expected = analysis.metric(logits, torch.arange(2))
    found = values(analysis, circuit)
    torch.testing.assert_close(found.metric, expected, atol=1e-5, rtol=0)
    without = values(analysis, EdgeCircuit((u, v, d), frozenset({(v, d), (d, OUTPUT)})))
    assert not torch.allclose(without.metric, found.metric)


def test_a_circuit_that_makes_no_sense_is_refused(model):
    analysis = analysis_of(model, full_suite(), toy_prompts(2))
    for nodes, edges, message in (
        (["mlp_out.7/1"], [], "no dictionary for mlp_out.7/1"),
        (["mlp_out.0/1"], [("mlp_out.0/1", "mlp_out.2/1")], "joins no two nodes"),
    ):
        circuit = EdgeCircuit(
            tuple(map(Node.parse, nodes)),
            frozenset((Node.parse(u), Node.parse(d)) for u, d in edges),
        )
        with pytest.raises(ValueError, match=message):
            restricted_metric(analysis, circuit, "patch")
    graph = nx.DiGraph()
    graph.add_nodes_from([Node("mlp_out.0", 1), Node("mlp_out.0", 1, 4)])
    with pytest.raises(ValueError, match="at every position: leave one out"):
        EdgeCircuit.of(graph)

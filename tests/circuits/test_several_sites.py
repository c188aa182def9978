"""Dictionaries that read or write several sites go through discover, verify and ablate.

In a model whose blocks add nothing, with features that are always on and a metric read from the
stream, everything is linear, so estimates, oracle and intervention agree to rounding.
"""

import pytest
import torch

from circuits.ablation.exact_effects import exact_effects
from circuits.ablation.faithfulness import full_and_empty, metric_with, metrics_with
from circuits.ablation.path_patching import exact_edges
from circuits.analysis import Analysis
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import effects_by_prompt, gradients_at_clean
from circuits.attribution.node_effects import TOKEN
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation
from circuits.edits.edited import graph_left
from circuits.graph import as_json
from circuits.metrics.readout import Readout
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.load import hook
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.nodes import NodeSet
from saes.suite import Suite
from tests.toys import toy_hf, toy_prompts

D, FEATURES = 16, 6
CHANGED = 1
"The position at which clean and patch prompts differ."
EXACT = {"rtol": 0.0, "atol": 1e-10}


def dictionary(spec, seed, width):
    """Random, every feature on whatever it reads."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64) / 4

    weights = {
        "W_enc": draw(FEATURES, width * len(spec.reads)),
        "b_enc": torch.full((FEATURES,), 100.0, dtype=torch.float64),
        "W_dec": draw(FEATURES, width * len(spec.writes)),
        "b_dec": draw(width * len(spec.writes)),
    }
    return SparseDictionary(spec, weights)


def cross_layer(layer, width):
    """Reads the stream before an MLP, writes the output of that MLP and of all later ones."""
    later = tuple(Site("mlp_out", at) for at in range(layer + 1, 3))
    spec = DictionarySpec(
        source=Site("resid_mid", layer),
        target=Site("mlp_out", layer),
        also_writes=later,
        called=f"clt.{layer}",
        architecture="relu",
    )
    return dictionary(spec, layer, width)


def crosscoder(width):
    """Reads and writes the stream after two layers."""
    spec = DictionarySpec(
        source=Site("resid_post", 0),
        target=Site("resid_post", 0),
        also_reads=(Site("resid_post", 1),),
        also_writes=(Site("resid_post", 1),),
        called="crosscoder.0-1",
        architecture="relu",
    )
    return dictionary(spec, 7, width)


@pytest.fixture(scope="module", params=["cross-layer transcoders", "crosscoder"])
def analysis(request):
    hf = toy_hf()
    width = hf.config.hidden_size
    for layer in hf.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
        layer.mlp.down_proj.weight.data.zero_()
    model = hook(hf, name="linear")
    if request.param == "crosscoder":
        spec = DictionarySpec(
            source=Site("attn_out", 2), target=Site("attn_out", 2), architecture="relu"
        )
        made = [crosscoder(width), dictionary(spec, 3, width)]
    else:
        spec = DictionarySpec(
            source=Site("resid_post", 0), target=Site("resid_post", 0), architecture="relu"
        )
        made = [*(cross_layer(layer, width) for layer in range(3)), dictionary(spec, 3, width)]
    suite = Suite({d.name: d for d in made}, {})
    direction = torch.linspace(-1, 1, width, dtype=torch.float64)
    config = DiscoverConfig(
        metric=Readout(site=Site("resid_post", 2), direction=direction, position=CHANGED),
        estimator="patching",
        nodes=200,
        edge_threshold=0.0,
        batch_size=3,
    )
    return Analysis.of(model, suite, toy_prompts(n=4), config)


@pytest.fixture(scope="module")
def discovery(analysis):
    return discover(analysis)


def test_names_and_sites(analysis):
    suite = analysis.suite
    assert list(suite) in (
        ["clt.0", "resid_post.0", "clt.1", "clt.2"],
        ["crosscoder.0-1", "attn_out.2"],
    )
    name = next(iter(suite))
    assert suite[name].name == name
    assert len(suite.writes_of(name)) > 1


def test_estimates_are_exact(analysis):
    ranking, _ = rank_nodes(analysis)
    nodes = ranking.nodes()
    assert {n.kind for n in nodes} == {"feature", "error", "token"}
    for state in analysis.states:
        g = gradients_at_clean(analysis, state)
        exact = exact_effects(analysis, state, nodes)
        assert exact.abs().max() > 0.1
        torch.testing.assert_close(effects_by_prompt(analysis, state, g, nodes), exact, **EXACT)


def test_edges_equal_path_patching_and_add_up(analysis):
    state, suite = analysis.states[0], analysis.suite
    nodes = rank_nodes(analysis)[0].nodes()
    g = gradients_at_clean(analysis, state)
    weights = edge_weights(analysis, state, g, nodes)
    edges = list(weights)
    assert len({u.site for u, _ in edges}) > 2
    exact = exact_edges(analysis, state, g, edges).sum(1)
    found = torch.tensor([weights[edge] for edge in edges], dtype=torch.float64)
    torch.testing.assert_close(found, exact, **EXACT)
    # Into the last dictionary nothing but edges of the graph carries a change.
    last = list(suite)[-1]
    effects = dict(zip(nodes, effects_by_prompt(analysis, state, g, nodes).sum(1), strict=True))
    for node in (n for n in nodes if n.site == last and n.kind == "feature"):
        into = sum(w for (_, target), w in weights.items() if target == node)
        assert into == pytest.approx(float(effects[node]), abs=1e-10)


def test_a_graph_is_found_and_checked(analysis, discovery):
    graph = discovery.graph
    check = VerifyConfig(to="patch", draws=1)
    record = verify(analysis, graph, discovery.ranking, config=check)
    assert record["nodes"]["slope"] == pytest.approx(1.0, abs=1e-6)
    assert record["edges"]["all"]["slope"] == pytest.approx(1.0, abs=1e-6)
    # All nodes are kept at the last size.
    assert record["curves"]["rows"]["circuit"]["faithfulness"][-1] == pytest.approx(1.0)
    assert record["curves"]["empty"] == pytest.approx(graph.graph["patch_metric"], abs=1e-5)
    names = {node["site"] for node in as_json(graph)["nodes"]}
    assert set(analysis.suite) - {"attn_out.2"} <= names


def test_what_verify_measures_is_what_was_estimated(analysis):
    """To 1e-10, before a record rounds it: every node's effect, and all of them together."""
    ranking, _ = rank_nodes(analysis)
    inner = ranking.inner()
    scale = full_and_empty(analysis, "patch")
    without = [NodeSet.of([node]).complement() for node in inner.nodes()]
    moved = metrics_with(analysis, without, "patch") - scale.full
    torch.testing.assert_close(moved.mean(1), inner.effect, **EXACT)
    tokens = ranking.where(ranking.feature == TOKEN)
    assert float(inner.effect.abs().max()) > 0.1
    # Tokens, errors and features of one site after another hand the same change on.
    assert float((scale.empty - scale.full).mean()) == pytest.approx(
        float(tokens.effect.sum()), abs=1e-10
    )
    kept = metric_with(analysis, inner.as_set(), "patch")
    torch.testing.assert_close(kept, scale.full, **EXACT)


def test_features_are_cut_out(analysis, discovery):
    """Set to zero, features take away just what they wrote."""
    state, suite, config = analysis.states[0], analysis.suite, analysis.config
    name = next(iter(suite))
    nodes = (Node(name, 1), Node(name, 4, 3))
    edit = Ablation(ablated=nodes, to="zero")
    result = ablate(analysis, edit, discovery.ranking)
    dictionary = suite[name]
    gain = sum(part @ config.metric.direction
               for part in dictionary.by_site(dictionary.W_dec).values())  # fmt: skip
    after = metric_with(analysis, edit.kept_set(), "zero")
    f = torch.cat([s.features[name].f.dense()[:, CHANGED, 1] for s in analysis.states])
    torch.testing.assert_close(after, analysis.metric.clean - f * gain[1], **EXACT)
    for row, before in zip(result["prompts"][:3], analysis.metric.clean[:3].tolist(), strict=True):
        f = state.features[name].f.dense()[int(result["prompts"].index(row))]
        lost = float(f[CHANGED, 1] * gain[1])
        assert row["before"] == pytest.approx(before, abs=1e-5)
        assert row["after"] == pytest.approx(before - lost, abs=1e-4)
    left = graph_left(analysis, edit, discovery.graph)
    cut = [n for n in left if n[:2] == (name, 1)]
    assert cut
    assert {left.nodes[n].get("ablated") for n in cut} == {"zero"}

"""Edges: the law they sum to, and what their prediction is worth against an actual intervention."""

import pytest
import torch

from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.deltas import node_deltas
from circuits.attribution.direct_paths import upstream
from circuits.attribution.edges import edge_weights
from circuits.attribution.effects import effects_by_prompt, gradients_at_clean
from circuits.discovery.config import DiscoverConfig
from circuits.graph import Node
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.suite import Suite
from tests.circuits.dense import dense
from tests.toys import (
    analysis_of,
    full_suite,
    padded_on_the_left,
    random_dictionary,
    shared_toy,
    toy_prompts,
    toy_suite,
)


def prepare(suite, n=1, **settings):
    analysis = analysis_of(shared_toy(), suite, toy_prompts(n=n), **settings)
    (state,) = analysis.states
    return analysis, state, gradients_at_clean(analysis, state)


def every_node(suite, length=6):
    nodes = [Node("embed", "token", p) for p in range(length)]
    for site, dictionary in suite.items():
        features = [*range(dictionary.n_features), "error"]
        nodes += [Node(site, f, p) for f in features for p in range(length)]
    return nodes


@pytest.fixture(scope="module")
def whole():
    """One prompt by the dictionaries of every layer, and all edges among all nodes."""
    suite = full_suite()
    analysis, state, gradients = prepare(suite)
    return analysis, state, gradients, edge_weights(analysis, state, gradients, every_node(suite))


def test_along_the_way_the_edges_into_a_node_add_up_to_its_effect():
    """At the clean run they do into the stream, and not into attention or MLPs."""
    sites = [Site.parse(s) for s in ("resid_post.0", "attn_out.1", "mlp_out.1", "resid_post.1")]
    suite = Suite(
        {
            site: random_dictionary(
                DictionarySpec(source=site, target=site, architecture="relu"), seed=i
            )
            for i, site in enumerate(sites)
        },
        {},
    )
    analysis = analysis_of(shared_toy(), suite, toy_prompts(n=1, length=4))
    (state,) = analysis.states
    gradients = gradients_at_clean(analysis, state)
    nodes = every_node(suite, length=4)
    gaps = {}
    for steps in (0, 12):
        along = analysis.asked(DiscoverConfig(edge_steps=steps))
        weights = edge_weights(along, state, gradients, nodes)
        into: dict[Node, float] = {}
        for (_, target), weight in weights.items():
            into[target] = into.get(target, 0.0) + weight
        effects = effects_by_prompt(analysis, state, gradients, nodes)[:, 0].tolist()
        for site in sites[1:]:
            rows = [
                (into[n], e) for n, e in zip(nodes, effects, strict=True) if n.site == str(site)
            ]
            found, expected = torch.tensor(rows).double().T
            gaps[site.kind, steps] = float((found - expected).norm() / expected.norm())
    assert max(gaps[kind, 12] for kind in ("attn_out", "mlp_out", "resid_post")) < 0.01
    assert min(gaps[kind, 0] for kind in ("attn_out", "mlp_out")) > 0.05
    assert gaps["resid_post", 0] < 0.01


@pytest.mark.parametrize("site", ["attn_out.1", "mlp_out.1", "mlp_out.2", "resid_post.1"])
def test_incoming_edges_sum_to_the_change_of_the_node_held_by_everything_else(site, whole):
    """All edges into a node are its gradient times its first-order change when every site
    upstream moves: finite differences of the real model with those sites set by hand."""
    analysis, state, gradients, weights = whole
    suite = analysis.suite
    site = Site.parse(site)
    dictionary = suite[site]
    feature = int(dense(state, site).f[0, 4].argmax())
    target = Node(str(site), feature, 4)
    total = sum(w for (_, d), w in weights.items() if d == target)

    def value_of(scale: float) -> torch.Tensor:
        edits = {}
        for source in upstream(suite.writes, site):
            move = dense(state, source).change @ suite[source].W_dec + state.errors[source].change
            new = state.values[source] + scale * move
            edits[source] = lambda _, new=new: new
        wanted = [dictionary.source]
        model = analysis.model
        with torch.no_grad(), intervene(model, edits), capture(model, wanted) as seen:
            last_logits(model, state.clean)
        return seen[dictionary.source][0, 4] @ dictionary.W_enc[feature] + dictionary.b_enc[feature]

    step = 1e-2
    slope = (value_of(step) - value_of(-step)) / (2 * step)
    gradient = gradients[site][0, 4] @ dictionary.W_dec[feature]
    assert total == pytest.approx(float(slope * gradient), rel=2e-3, abs=1e-6)


def test_edges_into_the_metric_from_the_last_site_are_the_node_effects():
    suite = full_suite()
    analysis, state, gradients = prepare(suite, n=2)
    weights = edge_weights(analysis, state, gradients, every_node(suite))
    site = Site("resid_post", 2)
    for (source, target), weight in weights.items():
        if target.site != "logit":
            continue
        assert source.site == "resid_post.2"
        (change,) = node_deltas(suite, state, [source])[site]
        expected = (change * gradients[site]).sum()
        assert weight == pytest.approx(float(expected), abs=1e-10)


def test_summed_positions_are_the_sum_over_kept_ones():
    suite = toy_suite("attn_out.1", "mlp_in.1-mlp_out.1", "resid_post.0", "resid_post.1")
    analysis, state, gradients = prepare(suite, n=2)
    kept = edge_weights(analysis, state, gradients, every_node(suite))
    summed_nodes = [Node(s, f) for s in suite for f in [*range(20), "error"]]
    summed_nodes.append(Node(str(EMBED), "token"))
    summed = edge_weights(analysis, state, gradients, summed_nodes)
    totals: dict = {}
    for (u, d), w in kept.items():
        key = (u._replace(position=None), d._replace(position=None))
        totals[key] = totals.get(key, 0.0) + w
    assert totals.keys() == summed.keys()
    for key, weight in summed.items():
        assert weight == pytest.approx(totals[key], rel=1e-5, abs=1e-5)


def with_both(suite, length=6):
    """Every node, at each position and summed over them."""
    summed = [Node(s, f) for s, d in suite.items() for f in [*range(d.n_features), "error"]]
    return [*every_node(suite, length), *summed]


def test_padding_on_the_left_changes_no_weight():
    suite, prompts = full_suite(torch.float32), toy_prompts(n=2)
    model = shared_toy(dtype=torch.float32)
    nodes = [n for n in with_both(suite) if n.position is None]
    found = []
    for version in (prompts, padded_on_the_left(prompts)):
        analysis = analysis_of(model, suite, version)
        (state,) = analysis.states
        gradients = gradients_at_clean(analysis, state)
        found.append(edge_weights(analysis, state, gradients, nodes))
    assert found[1] == pytest.approx(found[0], abs=1e-3)

"""Verification: what agreement, pool, levels and controls say, and what they do not depend on."""

import pytest
import torch

from circuits.ablation.faithfulness import metric_with
from circuits.analysis import Analysis
from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.graph import Node
from circuits.verification.estimator_agreement import agreement
from circuits.verification.faithfulness_curves import Scale
from circuits.verification.pooled import pool_agreement, pooled_nodes
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import intervene
from hooked_qwen.progress import silent
from hooked_qwen.sites import Site
from saes.evaluation.baselines import neurons
from saes.nodes import NodeSet
from tests.circuits.dense import dense, nodes_that_move
from tests.conftest import analysis_of, found_and_verified, full_suite, toy, toy_prompts


@pytest.fixture(scope="module")
def case():
    return toy(), full_suite(), toy_prompts(n=5)


def test_exact_zeros_have_no_sign():
    """They are counted apart: one is neither right nor wrong."""
    estimate = torch.tensor([[1.0], [-2.0], [3.0], [0.0]], dtype=torch.float64)
    exact = torch.tensor([[0.0, 0.0], [-1.0, -1.0], [-5.0, -7.0], [1.0, 2.0]])
    figures = agreement(estimate, exact.double())
    assert figures["zeros"] == 2
    assert figures["sign_agreement"] == 0.5
    none = agreement(estimate, torch.zeros(4, 2))
    assert (none["zeros"], none["sign_agreement"]) == (4, None)
    assert none["intervals"]["sign_agreement"] is None


@pytest.mark.parametrize("seed", range(5))
def test_every_interval_holds_its_own_value(seed):
    """Effects about zero change their signs and ranks in the draws more often than in the mean."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(60, 1, generator=generator).double() ** 3
    exact = means + torch.randn(60, 12, generator=generator).double()
    estimate = means + 0.1 * torch.randn(60, 1, generator=generator).double()
    for figures in (agreement(estimate, exact), agreement(exact + estimate, exact)):
        for name, ends in figures["intervals"].items():
            assert ends[0] <= figures[name] <= ends[1]


def test_agreement_is_of_features_and_errors_and_tokens_stand_apart(case):
    model, suite, prompts = case
    _, record = found_and_verified(model, suite, prompts, DiscoverConfig(nodes=15, steps=3))
    nodes = record["nodes"]
    assert nodes["tokens"]["n"] == 1
    assert nodes["n"] == len(nodes["points"]) == sum(s["n"] for s in nodes["by_site"].values())
    assert not any(point["id"].startswith("token") for point in nodes["points"])


def test_the_pool_does_not_depend_on_the_estimator(case):
    pools = []
    for estimator in ("patching", "relp"):
        analysis = analysis_of(*case, estimator=estimator, nodes=10)
        found = discover(analysis)
        pools.append(pooled_nodes(analysis, found.ranking, size=15, seed=3, report=silent))
    assert set(pools[0]) == set(pools[1])
    assert 15 < len(pools[0]) <= 45
    assert not any(node.kind == "token" for node in pools[0])


def test_strong_nodes_that_the_graph_lacks_are_listed():
    nodes = [Node("mlp_out.0", i, 0) for i in range(6)]
    ranking = NodeEffects.listed(
        ["embed", "mlp_out.0"], [(node, 1.0 - 0.1 * i) for i, node in enumerate(nodes)]
    )
    exact = torch.tensor([[1.0], [0.4], [-3.0], [0.1], [0.7], [-0.9]]).double()
    estimates = torch.tensor([[e] for _, e in ranking]).double()
    found = pool_agreement(
        nodes, estimates, exact, kept={nodes[0]: 1.0, nodes[1]: 0.4}, ranking=ranking, asked=4
    )
    missed = {row["id"]: (row["exact"], row["rank"], row["by"]) for row in found["missed"]}
    assert missed == {
        "mlp_out.0/2@0": (-3.0, 3, "rule"),
        "mlp_out.0/5@0": (-0.9, 6, "estimate"),
        "mlp_out.0/4@0": (0.7, 5, "estimate"),
    }
    assert list(missed) == ["mlp_out.0/2@0", "mlp_out.0/5@0", "mlp_out.0/4@0"]


def numbers(record, path=""):
    """The values of a record, by where each stands."""
    if not isinstance(record, dict | list):
        return {path: record}
    items = record.items() if isinstance(record, dict) else enumerate(record)
    found = {}
    for key, value in items:
        found |= numbers(value, f"{path}/{key}")
    return found


def test_a_quick_check_measures_the_same_nodes_and_edges_and_three_sizes(case):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=12)
    found, full = found_and_verified(model, suite, prompts, config, level="full")
    quick = verify(
        Analysis.of(model, suite, prompts, config),
        found.graph,
        found.ranking,
        config=VerifyConfig(level="quick"),
    )
    for part in ("nodes", "edges"):
        assert numbers(quick[part]) == pytest.approx(numbers(full[part]), abs=1e-12)
    assert quick["curves"]["sizes"] == [10, 100, full["curves"]["sizes"][-1]]
    assert quick["each_adds"] == full["each_adds"] | {"nodes": []}
    assert "pool" not in quick
    at = [full["curves"]["sizes"].index(size) for size in quick["curves"]["sizes"]]
    for name in ("circuit", "circuit without errors"):
        whole = full["curves"]["rows"][name]["faithfulness"]
        assert quick["curves"]["rows"][name]["faithfulness"] == pytest.approx(
            [whole[i] for i in at], abs=1e-6
        )


def test_a_coordinate_kept_is_kept_whole(case):
    """As two nodes, one a sign, keeping the one that moves leaves the other half ablated."""
    model, suite, prompts = case
    coordinates = neurons(suite)
    analysis = analysis_of(model, coordinates, prompts, estimator="patching")
    scale = Scale.of(analysis, "patch")
    (state,) = analysis.states
    for name in coordinates:
        assert torch.equal(dense(state, name).f, state.values[Site.parse(name)])
    changed = nodes_that_move(analysis, state)
    assert len(changed) == len(set(changed)) <= 9 * 24 * 6
    # Half of the coordinates: what stands at a site is the clean value there, else the patch's.
    last = Site("resid_post", 2)
    some = {n for n in changed[::2] if n.site == str(last)}
    stays = torch.zeros(6, 24, dtype=torch.bool)
    for node in some:
        stays[node.position, node.feature] = True
    half = torch.where(stays, state.values[last], dense(state, last).reference)
    with intervene(model, {last: lambda _: half}):
        expected = analysis.metric(last_logits(model, prompts.clean), state.rows)
    kept = NodeSet.of([n for n in changed if n.site != str(last) or n in some])
    found = metric_with(analysis, kept, "patch")
    torch.testing.assert_close(found, expected)
    everything = scale.faithfulness([NodeSet.of(changed)])
    assert float(everything.values) == pytest.approx(1, abs=1e-6)

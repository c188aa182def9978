"""Verification: what agreement, pool, levels and controls say, and what they do not depend on."""

import pytest
import torch

from circuits.analysis import Analysis
from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.graph import Node
from circuits.verification.pooled import pool_agreement, pooled_nodes
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.progress import silent
from tests.toys import analysis_of, found_and_verified, full_suite, shared_toy, toy_prompts


@pytest.fixture(scope="module")
def case():
    return shared_toy(), full_suite(), toy_prompts(n=5)


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
    adds = full["each_adds"] | {"nodes": []}
    assert numbers(quick["each_adds"]) == pytest.approx(numbers(adds), abs=1e-12)
    assert "pool" not in quick
    at = [full["curves"]["sizes"].index(size) for size in quick["curves"]["sizes"]]
    for name in ("circuit", "circuit without errors"):
        whole = full["curves"]["rows"][name]["faithfulness"]
        assert quick["curves"]["rows"][name]["faithfulness"] == pytest.approx(
            [whole[i] for i in at], abs=1e-6
        )

"""The pool of nodes that a check draws from."""

import pytest
import torch

from circuits.attribution.node_effects import NodeEffects
from circuits.discovery.sparse_feature import discover
from circuits.graph import Node
from circuits.verification.pooled import pool_agreement, pooled_nodes
from hooked_qwen.progress import silent
from tests.toys import analysis_of, full_suite, shared_toy, toy_prompts


@pytest.fixture(scope="module")
def case():
    return shared_toy(), full_suite(), toy_prompts(n=5)


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

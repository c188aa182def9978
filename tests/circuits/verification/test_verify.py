"""Verification: what agreement, pool, levels and controls say, and what they do not depend on."""

import pytest

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.verification.verify import VerifyConfig, verify
from tests.toys import found_and_verified, full_suite, shared_toy, toy_prompts


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

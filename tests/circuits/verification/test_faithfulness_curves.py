"""Faithfulness over growing circuits: its ends, its laws in a linear model, and every control."""

from itertools import combinations

import pytest
import torch

from circuits.ablation.faithfulness import Measured
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.ranking import rank_nodes
from circuits.discovery.sparse_feature import discover
from circuits.verification.faithfulness_curves import (
    Scale,
    areas,
    curves,
    held_out_curves,
    what_each_adds,
)
from saes.nodes import NodeSet
from tests.circuits.linear import FEATURES, linear_analysis
from tests.toys import analysis_of, found_and_verified, full_suite, shared_toy, toy_prompts


@pytest.fixture(scope="module")
def case():
    return shared_toy(), full_suite(), toy_prompts(n=5)


@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_verification_compares_with_every_control(case, positions):
    model, suite, prompts = case
    config = DiscoverConfig(estimator="patching", nodes=20, positions=positions)
    _, record = found_and_verified(model, suite, prompts, config, level="full")
    curves = record["curves"]
    assert set(curves["rows"]) == {
        "circuit",
        "circuit, no attn or mlp errors",
        "circuit without errors",
        "random nodes, same sites",
        "random nodes",
        "random features",
        "neurons",
        "neurons, inside the MLPs",
        "features, neurons inside the MLPs",
        "features, neurons inside the MLPs, no errors",
        "untrained dictionaries",
        "untrained dictionaries, no errors",
    }
    for name, row in curves["rows"].items():
        complete = len(curves["sizes"]) if name.startswith("circuit") else 0
        for field, values in row.items():
            assert len(values) == (complete if "completeness" in field else len(curves["sizes"]))
        for value, low, high in zip(row["faithfulness"], row["low"], row["high"], strict=True):
            assert low <= value <= high
    at = curves["sizes"].index(curves["margin"]["size"])
    assert curves["margin"]["circuit"] == curves["rows"]["circuit"]["faithfulness"][at]
    assert curves["rows"]["circuit"]["faithfulness"] != curves["rows"]["neurons"]["faithfulness"]
    assert curves["rows"]["neurons"] != curves["rows"]["neurons, inside the MLPs"]
    assert record["edges"]["all"]["n"] == len(record["edges"]["points"]) > 0
    added = record["each_adds"]
    assert added["circuit"] == 20
    assert len(added["nodes"]) == 20


def test_areas_of_known_curves():
    """A circuit that is faithful from the first node on, and one that follows its share."""

    def measured(*values):
        column = torch.tensor(values, dtype=torch.float64)
        return Measured(column, column.unsqueeze(-1).expand(-1, 7))

    found = areas(measured(1.0, 1.0), [1, 100])
    assert found["cpr"] == pytest.approx(0.995)
    assert found["cmd"] == pytest.approx(0.005)
    assert found["cmd_interval"] == pytest.approx([0.005, 0.005])
    assert areas(measured(0.5, 1.0), [50, 100])["cpr"] == 0.5


def test_what_a_node_adds_is_what_the_circuit_loses_without_it(case):
    model, suite, prompts = case
    analysis = analysis_of(model, suite, prompts, estimator="patching", nodes=5)
    found = discover(analysis)
    scale = Scale.of(analysis, "mean")
    nodes = [n for n in found.graph if n.kind in ("feature", "error")]
    added = what_each_adds(scale, nodes)
    (whole,) = scale.faithfulness([NodeSet.of(nodes)]).values
    for row in added["nodes"]:
        without = [n for n in nodes if str(n) != row["id"]]
        assert row["adds"] == pytest.approx(
            float(whole - scale.faithfulness([NodeSet.of(without)]).values), abs=1e-6
        )
        assert row["interval"][0] <= row["adds"] <= row["interval"][1]


@pytest.fixture(scope="module")
def linear():
    """An analysis in which effects add up, its scale, and its ranking."""
    analysis = linear_analysis()
    return Scale.of(analysis, "patch"), rank_nodes(analysis)[0]


@pytest.fixture(scope="module")
def record(linear):
    return curves(*linear, level="full", draws=2, seed=0)


def shares(nodes, ranking, sizes):
    """Of the summed effect, that of the first of some nodes."""
    effects, total = dict(ranking), sum(effect for _, effect in ranking.inner())
    return [sum(effects[n] for n in nodes[:size]) / total for size in sizes]


def test_in_a_linear_model_faithfulness_is_the_share_of_the_effects(linear, record):
    _, ranking = linear
    assert record["sizes"] == [1, 2, 5, 10, FEATURES + 1]
    every = ranking.inner().nodes()
    for name, nodes in (
        ("circuit", every),
        ("circuit without errors", [n for n in every if n.kind == "feature"]),
    ):
        expected = shares(nodes, ranking, record["sizes"])
        row = record["rows"][name]
        assert row["faithfulness"] == pytest.approx(expected, abs=1e-6)
        assert row["completeness"] == pytest.approx([1 - x for x in expected], abs=1e-6)


def test_with_all_nodes_every_basis_is_faithful(record):
    """One in which something is left out is not, unless what is left out is nothing."""
    last = {name: row["faithfulness"][-1] for name, row in record["rows"].items()}
    for name in ("circuit", "random nodes", "random nodes, same sites", "untrained dictionaries"):
        assert last.pop(name) == pytest.approx(1, abs=1e-6)
    assert last["random features"] == pytest.approx(last["circuit without errors"], abs=1e-6)
    assert abs(last["circuit without errors"] - 1) > 1e-3


def test_the_ends_of_the_scale_are_the_clean_and_the_patch_metric(linear, record):
    scale, _ = linear
    metric = scale.analysis.metric
    assert record["full"] == pytest.approx(float(metric.clean.mean()), rel=1e-5)
    assert record["empty"] == pytest.approx(float(metric.patch.mean()), rel=1e-5)
    assert record["nodes_that_move"] == FEATURES + 1


def test_a_row_of_several_draws_is_their_mean(linear, record):
    alone = [curves(*linear, level="quick", draws=1, seed=seed) for seed in (0, 1)]
    assert [one["sizes"] for one in alone] == [[10, FEATURES + 1]] * 2
    at = record["sizes"].index(10)
    for name in ("random nodes", "random nodes, same sites"):
        drawn = [one["rows"][name]["faithfulness"][0] for one in alone]
        assert record["rows"][name]["faithfulness"][at] == pytest.approx(sum(drawn) / 2, abs=1e-6)
    drawn = [one["rows"]["random nodes"]["faithfulness"][0] for one in alone]
    assert drawn[0] != pytest.approx(drawn[1], abs=1e-3)


def test_random_nodes_at_the_same_sites_have_as_many_errors(linear):
    scale, ranking = linear
    kinds = [node.kind for node in ranking.inner().nodes()[:10]]
    error = next(n for n in ranking.inner().nodes() if n.kind == "error")
    effects, total = dict(ranking), sum(effect for _, effect in ranking.inner())
    has_error = kinds.count("error") == 1
    alone = curves(scale, ranking, level="quick", draws=1, seed=3)
    found = alone["rows"]["random nodes, same sites"]["faithfulness"][0] * total
    features = [effect for node, effect in effects.items() if node.kind == "feature"]
    left = 10 - has_error
    possible = [sum(some) + has_error * effects[error] for some in combinations(features, left)]
    assert min(abs(found - one) for one in possible) < 1e-5 * abs(total)


def test_in_a_linear_model_a_node_adds_its_effect(linear):
    scale, ranking = linear
    nodes = ranking.inner().nodes()[:6]
    added = what_each_adds(scale, nodes)
    single = [shares([node], ranking, [1])[0] for node in nodes]
    assert [row["adds"] for row in added["nodes"]] == pytest.approx(single, abs=1e-6)
    assert added["faithfulness"] == pytest.approx(sum(single), abs=1e-6)
    quick = what_each_adds(scale, nodes, level="quick")
    assert (quick["circuit"], quick["nodes"]) == (6, [])
    assert quick["faithfulness"] == pytest.approx(added["faithfulness"], abs=1e-9)


def test_other_prompts_have_the_rows_of_the_same_circuits(linear):
    """On the prompts of the run themselves, the numbers of the run."""
    scale, ranking = linear
    held_out = held_out_curves(scale, ranking, level="full", seed=0)
    own = curves(scale, ranking, level="quick", draws=1, seed=0)
    assert held_out["n_prompts"] == 4
    for name, row in held_out["rows"].items():
        for size, value in zip(own["sizes"], own["rows"][name]["faithfulness"], strict=True):
            at = held_out["sizes"].index(size)
            assert row["faithfulness"][at] == pytest.approx(value, abs=1e-6)


@pytest.mark.parametrize("to", ["mean", "patch", "zero"])
def test_all_nodes_are_faithful_and_complete_and_none_are_neither(case, to):
    scale = Scale.of(analysis_of(*case), to)
    none = NodeSet.of([])
    found = scale.curve([none, none.complement()], complete=True)
    assert found.faithfulness.record() == pytest.approx([0, 1], abs=1e-6)
    assert found.completeness.record() == pytest.approx([1, 0], abs=1e-6)


def test_areas_do_not_depend_on_the_sizes_where_the_curve_is_straight():
    def straight(sizes):
        column = torch.tensor([size / sizes[-1] for size in sizes], dtype=torch.float64)
        return areas(Measured(column, column.unsqueeze(-1).expand(-1, 3)), sizes)

    for sizes in ([100], [3, 50, 100], [1, 2, 5, 10, 64]):
        assert straight(sizes)["cpr"] == pytest.approx(0.5)
        assert straight(sizes)["cmd"] == pytest.approx(0.5)

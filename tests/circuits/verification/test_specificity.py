"""The matrix task x circuit: every cell is what `ablate` does with the same nodes."""

import pytest

from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation
from circuits.graph import Node
from circuits.verification.specificity import RANDOM, SpecificityConfig, TaskCircuit, specificity
from tests.toys import analysis_of, shared_toy, toy_prompts, toy_suite


@pytest.fixture(scope="module")
def tasks():
    model, suite = shared_toy(), toy_suite("mlp_out.0", "resid_post.1")
    found = {}
    for name, length, seed in (("one", 4, 1), ("two", 5, 2)):
        analysis = analysis_of(model, suite, toy_prompts(3, length, seed=seed), nodes=6, steps=1)
        made = discover(analysis)
        found[name] = TaskCircuit(analysis=analysis, graph=made.graph, ranking=made.ranking)
    return found


@pytest.fixture(scope="module")
def record(tasks):
    return specificity(tasks, SpecificityConfig(draws=2))


def test_every_cell_is_what_ablate_does_with_the_same_nodes(tasks, record):
    for row, (_, circuit) in enumerate(record["circuits"].items()):
        nodes = tuple(map(Node.parse, circuit))
        assert len(nodes) == record["size"]
        for column, task in enumerate(tasks.values()):
            edit = Ablation(ablated=nodes, to="mean")
            result = ablate(task.analysis, edit, task.ranking)
            cell = record["lost"][row][column]
            assert cell["metric"] == pytest.approx(result["after"], rel=1e-6)
            about = record["tasks"][list(tasks)[column]]
            assert about["full"] == pytest.approx(result["before"], rel=1e-6)
            lost = (about["full"] - cell["metric"]) / (about["full"] - about["empty"])
            assert cell["value"] == pytest.approx(lost, abs=1e-5)


def test_own_and_others_are_read_from_the_matrix(record):
    names = list(record["tasks"])
    for column, name in enumerate(names):
        values = [record["lost"][row][column]["value"] for row in range(len(names))]
        about, others = record["tasks"][name], [v for i, v in enumerate(values) if i != column]
        assert about["own"]["value"] == pytest.approx(values[column])
        assert about["others"]["value"] == pytest.approx(sum(others) / len(others))
        assert about["worst"]["value"] == pytest.approx(max(others))
        beyond = values[column] - sum(others) / len(others)
        assert about["own_beyond_others"]["value"] == pytest.approx(beyond, abs=1e-6)
    assert record["rows"][-1] == RANDOM


def test_a_circuit_held_against_itself_is_no_more_specific_than_it(tasks):
    same = {"one": tasks["one"], "again": tasks["one"]}
    record = specificity(same, SpecificityConfig(draws=1))
    assert record["lost"][0] == record["lost"][1]
    assert record["overlap"][0]["jaccard"] == 1
    assert record["tasks"]["one"]["own_beyond_others"]["value"] == 0


def test_what_cannot_be_compared_is_refused(tasks):
    with pytest.raises(ValueError, match="1 run was given"):
        specificity({"one": tasks["one"]})
    with pytest.raises(ValueError, match="500 features were asked for"):
        specificity(tasks, SpecificityConfig(size=500))

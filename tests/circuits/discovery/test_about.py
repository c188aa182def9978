"""What a graph says of the analysis that it is of."""

import networkx as nx

from circuits.discovery.about import about
from hooked_qwen.identity import identity
from tests.toys import analysis_of, speaking_toy, toy_prompts, toy_suite

NUMBERS = {"clean": 1 / 3, "patch": None, "accuracy": 0.5, "edge_units": "logits"}


def told(**config):
    analysis = analysis_of(speaking_toy(), toy_suite("resid_post.1"), toy_prompts(n=3), **config)
    graph = nx.DiGraph([(0, 1), (0, 2)])
    return analysis, about(analysis, graph, edges_computed=7, **NUMBERS)


def test_configuration_model_and_dictionaries_are_told():
    analysis, found = told(nodes=12)
    assert found["nodes"] == 12
    assert found["model"]["hash"] == identity(analysis.model)
    assert (found["model"]["layers"], found["model"]["d_model"]) == (3, 24)
    assert found["dictionaries"] == analysis.suite.describe()
    assert (found["n_prompts"], found["edges_kept"], found["edges_computed"]) == (3, 2, 7)


def test_numbers_have_the_digits_of_a_file_and_none_stays_none():
    _, found = told()
    assert found["clean_metric"] == 0.3333333
    assert found["patch_metric"] is None
    assert found["accuracy"] == 0.5

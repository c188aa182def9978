"""Which nodes a command ablates, and what an ablation is called."""

import pytest

from circuits.edits.ablation import Ablation
from circuits.graph import Node
from circuits.runs.ablate_run import ablation_name, ablation_of
from tests.circuits import synthetic


@pytest.fixture(scope="module")
def graph():
    return synthetic.circuit(30)


def test_what_is_ablated_is_what_is_named(graph):
    named = (Node("mlp_out.0", 3),)
    for top, outside in ((None, False), (3, False), (None, True)):
        found = ablation_of(graph, named, top, outside=outside, to="patch")
        assert found == Ablation(ablated=named, to="patch")


def test_the_top_features_are_the_strongest_of_the_graph(graph):
    features = [n for n in graph if n.kind == "feature"]
    by_size = sorted(features, key=lambda n: -abs(graph.nodes[n]["effect"]))
    for top in (1, 4, len(features)):
        found = ablation_of(graph, (), top, outside=False, to="zero")
        assert found.ablated == tuple(by_size[:top])
    for top in (0, -1, len(features) + 1, None):
        with pytest.raises(ValueError, match=f"expected --top 1 to {len(features)}"):
            ablation_of(graph, (), top, outside=False, to="zero")


def test_outside_the_graph_everything_is_ablated_but_its_nodes(graph):
    found = ablation_of(graph, (), None, outside=True, to="mean")
    assert found.ablated == ()
    assert set(found.kept) == {n for n in graph if n.kind != "logit"}


@pytest.mark.parametrize("given", ["a", "top-10", "Schlüssel, top 1", "mlp_out.3@5", "x" * 100])
def test_a_name_that_is_one_folder_is_taken(given):
    assert ablation_name(given) == given


@pytest.mark.parametrize(
    "given", ["", ".", "..", ".hidden", "a/b", "a\\b", "a ", " a", "a.", "x" * 101, "a\nb", "a:b"]
)
def test_a_name_that_is_no_folder_everywhere_is_refused(given):
    with pytest.raises(ValueError, match="is no name for an ablation"):
        ablation_name(given)

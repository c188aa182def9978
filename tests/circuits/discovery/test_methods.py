"""A graph is of the kind that its configuration asks for."""

import pytest

from circuits.discovery.methods import METHODS, discover_by_method
from circuits.discovery.replacement import discover_replacement
from circuits.discovery.sparse_feature import discover
from circuits.graph import as_json
from tests.circuits.discovery.replaced import analysis


@pytest.mark.parametrize(
    ("method", "direct"), [("sparse-feature", discover), ("replacement", discover_replacement)]
)
def test_the_configuration_chooses_the_kind(one, method, direct):
    asked = analysis(one, method=method, nodes=8)
    found = discover_by_method(asked)
    assert found.graph.graph["method"] == method
    assert as_json(found.graph) == as_json(direct(asked).graph)


def test_a_new_kind_is_one_row(one, monkeypatch):
    asked = analysis(one, nodes=8)
    other = discover(analysis(one, method="sparse-feature", nodes=8))
    monkeypatch.setitem(METHODS, "replacement", lambda analysis, **more: other)
    assert discover_by_method(asked) is other

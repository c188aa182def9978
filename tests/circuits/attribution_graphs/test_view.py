"""What is pinned and grouped in an attribution graph's file, by the names that nodes have here."""

import copy
import json

import pytest

from circuits.attribution_graphs import read_view
from circuits.graph import Node
from circuits.render.export.viewers import VIEWERS, viewer_graph
from circuits.saved_state import SavedState
from tests.circuits.attribution_graphs.sample import SAMPLE
from tests.circuits.attribution_graphs.test_read import BY_TOKEN, WITH_ATTENTION
from tests.circuits.synthetic import circuit

TEXAS, CITY = Node("clt.0", 2, 1), Node("clt.2", 812, 2)


@pytest.fixture
def view(tmp_path):
    def of(pinned, groups, sample=SAMPLE):
        record, path = copy.deepcopy(sample), tmp_path / "graph.json"
        record["qParams"] = {"pinnedIds": pinned, "supernodes": groups}
        path.write_text(json.dumps(record), encoding="utf-8")
        return read_view(path)

    return of


@pytest.mark.parametrize("viewer", VIEWERS)
@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_a_state_that_was_exported_comes_back(tmp_path, viewer, positions):
    graph = circuit(40, positions=positions)
    one, two, three = [n for n in graph if n.kind == "feature"][:3]
    state = SavedState(pinned=(one, two, three), groups={"a group": (two, three)})
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(viewer_graph(graph, viewer, slug="x", state=state)))
    assert read_view(path) == state


def test_pinned_nodes_keep_their_order_and_a_group_its_own(view):
    assert view(["2_812_2", "0_2_1"], []).pinned == (CITY, TEXAS)
    assert view([], [["say a city", "2_812_2", "0_2_1"]]).groups == {"say a city": (CITY, TEXAS)}


def test_a_view_is_in_lists_or_as_an_address_has_it(view):
    groups = [["Texas", "0_2_1"], ["say, a city", "2_812_2"]]
    found = view("2_812_2,0_2_1", json.dumps(groups))
    assert found == view(["2_812_2", "0_2_1"], groups)
    assert found.groups == {"Texas": (TEXAS,), "say, a city": (CITY,)}
    for nothing in ("", " ", None, []):
        assert view(nothing, nothing) == SavedState()


def test_a_node_is_in_the_first_of_its_groups_and_once(view):
    groups = [["Texas", "0_2_1", "0_2_1"], ["both", "0_2_1", "2_812_2"], ["again", "2_812_2"]]
    assert view([], groups).groups == {"Texas": (TEXAS,), "both": (CITY,)}


def test_what_the_graph_lacks_is_in_no_group_and_a_group_of_nothing_is_none(view):
    found = view(["gone", "2_812_2"], [["none", "gone"], ["empty"], ["city", "gone", "2_812_2"]])
    assert (found.pinned, found.groups) == ((CITY,), {"city": (CITY,)})


def test_where_an_error_has_the_name_of_a_feature_the_feature_is_meant(view):
    """0_2_1 is both in the sample, the feature first; here it comes last too."""
    other = copy.deepcopy(SAMPLE)
    other["nodes"].reverse()
    for sample in (SAMPLE, other):
        assert view(["0_2_1", "0_1_2"], [], sample).pinned == (TEXAS, Node("mlp_out.1", "error", 2))


def test_names_are_text_whatever_they_are_in_the_file(view):
    assert view([], [[7, "2_812_2"]]).groups == {"7": (CITY,)}
    of = view(["output_1_0", "input_0"], [], BY_TOKEN)
    assert of.pinned == (Node("logit", " Austin"), Node("embed", "token", 0))


def test_nodes_that_have_no_name_here_are_in_no_view(view):
    """A bias is pinned in the file; a graph has none."""
    found = view(["1_bias_attn_bO_1", "1_cro_7_1"], [], WITH_ATTENTION)
    assert found.pinned == (Node("mlp_out.1", 7, 1),)


def test_another_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "graph.json"
    for text, said in (("{", "is not JSON"), ("{}", "it lacks metadata, nodes, links")):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=f"graph.json .*{said}"):
            read_view(path)

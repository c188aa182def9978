"""Laws of the layout: nothing overlaps, depth goes up, positions go right, twice is the same."""

from itertools import combinations

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.layout import SUMMED, depth, layout
from circuits.render.pages.circuit.document import LARGEST
from hooked_qwen.sites import KINDS, Site
from tests.circuits import synthetic


@pytest.mark.parametrize("positions", ["keep", "sum"])
@pytest.mark.parametrize("n", [2, 40, 400])
def test_no_two_nodes_overlap(n, positions):
    places = layout(synthetic.circuit(n, positions=positions)).places.values()
    for one, other in combinations(places, 2):
        assert abs(one.x - other.x) >= 2 * LARGEST or abs(one.y - other.y) >= 2 * LARGEST


@pytest.mark.parametrize("positions", ["keep", "sum"])
def test_every_node_stands_inside_its_band_and_column(positions):
    drawn = layout(synthetic.circuit(300, positions=positions))
    for place in drawn.places.values():
        band, column = drawn.bands[place.band], drawn.columns[place.column]
        assert abs(place.y - band.y) + LARGEST <= band.height / 2
        assert abs(place.x - column.x) + LARGEST <= column.width / 2
        assert 0 <= place.x <= drawn.width
        assert 0 <= place.y <= drawn.height


def test_bands_rise_in_the_order_of_computation():
    graph = synthetic.circuit(200)
    sites = [band.site for band in layout(graph).bands]
    assert sites == sorted({node.site for node in graph}, key=depth, reverse=True)
    assert sites[0] == "logit"
    assert sites[-1] == "embed"
    assert sites.index("resid_post.1") < sites.index("mlp_out.1") < sites.index("attn_out.1")


def test_bands_stand_in_the_order_of_the_forward_pass():
    there = [Site(kind, layer) for layer in (0, 1) for kind in KINDS if kind != "embed"]
    shuffled = sorted(map(str, there))
    assert sorted(shuffled, key=depth) == [str(site) for site in sorted(there)]


def test_edges_run_upwards():
    graph = synthetic.circuit(200)
    places = layout(graph).places
    assert all(places[target].y < places[source].y for source, target in graph.edges)


def test_columns_are_the_tokens_and_outputs_stand_over_the_last():
    graph = synthetic.circuit(60)
    drawn = layout(graph)
    assert [column.token for column in drawn.columns] == synthetic.PROMPT
    assert drawn.places[Node("logit", " are")].column == len(synthetic.PROMPT) - 1
    for node, place in drawn.places.items():
        assert node.position in (place.column, None)


def test_summed_positions_share_one_column():
    columns = layout(synthetic.circuit(60, positions="sum")).columns
    assert [(column.position, column.token) for column in columns] == [(None, SUMMED)]


def test_without_token_texts_columns_are_numbered():
    graph = synthetic.circuit(30)
    graph.graph.clear()
    last = max(node.position for node in graph if node.position is not None)
    assert [column.token for column in layout(graph).columns] == [str(i) for i in range(last + 1)]


def test_the_strongest_of_a_cell_comes_first():
    graph = nx.DiGraph()
    for feature, effect in enumerate([0.1, -0.9, 0.5]):
        graph.add_node(Node("mlp_out.0", feature), kind="feature", effect=effect, label="")
    places = layout(graph, aspect=10.0).places
    assert sorted(places, key=lambda n: places[n].x) == [Node("mlp_out.0", i) for i in (1, 2, 0)]


def test_the_order_of_insertion_does_not_matter():
    graph = synthetic.circuit(80)
    shuffled = nx.DiGraph(**graph.graph)
    shuffled.add_nodes_from(reversed(list(graph.nodes(data=True))))
    assert dict(layout(graph).places) == dict(layout(shuffled).places)


def test_an_empty_graph_has_an_empty_layout():
    assert layout(nx.DiGraph()).places == {}


def test_every_other_layer_that_has_nodes_is_shaded_whatever_its_number():
    graph = nx.DiGraph(columns=["a"])
    sites = ["embed", "resid_post.2", "mlp_out.6", "resid_post.6", "resid_post.10", "logit"]
    for site in sites:
        kind = {"embed": "token", "logit": "logit"}.get(site, "feature")
        feature = {"token": "token", "logit": "answer"}.get(kind, 1)
        graph.add_node(Node(site, feature, None if kind == "logit" else 0), effect=1.0, kind=kind)
    shaded = {band.site: band.shaded for band in layout(graph).bands}
    assert shaded["resid_post.10"] != shaded["resid_post.6"] != shaded["resid_post.2"]
    assert shaded["mlp_out.6"] == shaded["resid_post.6"]
    assert not shaded["logit"]
    assert not shaded["embed"]

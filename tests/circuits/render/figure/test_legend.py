"""The legend of a figure: what lines mean, and how much of the graph is drawn."""

from itertools import pairwise

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.figure import ink
from circuits.render.figure.legend import folded_edges, legend_entries, legend_lines, legend_marks
from circuits.render.figure.marks import Shape, TextMark, Trace
from circuits.render.figure.sheet import MARGIN, TEXT, Sheet

A, B, C, D = (Node("mlp_out.0", number, 1) for number in range(4))
GROUP = Node("group", "nouns")


def graph_of(*nodes, edges=(), **meta):
    graph = nx.DiGraph(**meta)
    graph.add_nodes_from(nodes)
    graph.add_weighted_edges_from((u, v, 1.0) for u, v in edges)
    return graph


@pytest.fixture
def whole():
    return graph_of(A, B, C, D, edges=[(A, B), (B, C), (C, D), (A, D)])


def test_nodes_and_edges_are_counted_of_all(whole):
    part = whole.subgraph([A, B, D])
    assert legend_entries(part, whole, cut=False) == [
        "supports",
        "opposes",
        "3 of 4 nodes, 2 of 4 edges",
    ]
    assert legend_entries(part, whole, cut=True)[2].endswith("edges (more do not fit)")


def test_an_edge_that_stands_for_a_path_is_none_of_the_graphs(whole):
    part = whole.subgraph([A, D]).copy()
    part.add_edge(D, A, weight=1.0, via=(B, C))
    assert folded_edges(part) == [(D, A)]
    assert legend_entries(part, whole, cut=False)[2] == (
        "○: by way of 2 nodes; 2 of 4 nodes, 1 of 4 edges"
    )
    part.add_edge(A, D, weight=1.0, via=(B,))
    assert legend_entries(part, whole, cut=False)[2].startswith("○: by way of 1 to 2 nodes; ")
    part.edges[D, A]["via"] = (C,)
    assert legend_entries(part, whole, cut=False)[2].startswith("○: by way of 1 node; ")


def test_a_group_counts_its_members_and_is_a_box(whole):
    part = graph_of(GROUP, D)
    part.nodes[GROUP]["members"] = [str(A), str(B)]
    assert legend_entries(part, whole, cut=False)[2] == ("3 of 4 nodes in 2 boxes, 0 of 4 edges")


def test_where_edges_act_on_their_target_it_is_said(whole):
    whole.graph |= {"edge_units": "pre-activation of the target", "legend": "left | right"}
    supports, opposes, counts = legend_entries(whole, whole, cut=False)
    assert (supports, opposes) == ("supports / raises", "opposes / lowers")
    assert counts.startswith("left | right, 4 of 4 nodes")


@pytest.mark.parametrize("page", [2.0, 3.3, 7.0])
def test_what_has_no_room_beside_the_kinds_stands_under_them(page):
    entries = ["supports", "opposes", "12 of 345 nodes in 9 boxes, 60 of 1,234 edges"]
    lines = legend_lines(entries, page)
    assert " ".join(word for line in lines for word in line) == " ".join(entries)
    assert len(lines) == 1 if page == 7.0 else lines[0] == ("supports", "opposes")
    for (line,) in lines[1:]:
        assert ink.measure(line, TEXT) <= page - 2 * MARGIN


@pytest.mark.parametrize("page", [3.3, 7.0])
def test_the_legend_stands_at_the_foot_in_order_and_no_word_on_another(page):
    """A solid line with a tip supports, a dashed one with a bar opposes."""
    lines = legend_lines(["supports", "opposes", "12 of 345 nodes, 60 of 1,234 edges"], page)
    sheet = Sheet(width=page, height=2.0, axis=0.0, boxes={}, lines=(), rows=(), heads=())
    marks = list(legend_marks(lines, sheet))
    texts = [mark for mark in marks if isinstance(mark, TextMark)]
    assert [mark.text for mark in texts] == [word for line in lines for word in line]
    traces = [mark for mark in marks if isinstance(mark, Trace)]
    assert [trace.stroke.dashed for trace in traces] == [False, True, False]
    assert sum(isinstance(mark, Shape) for mark in marks) == 1
    ends = []
    for mark in texts:
        width = ink.measure(mark.text, TEXT)
        left = mark.at[0] - (width if mark.anchor == "right" else 0)
        assert left >= MARGIN - 1e-9
        assert left + width <= page - MARGIN + 1e-9
        assert 1.5 < mark.at[1] <= sheet.height - MARGIN
        ends.append((round(mark.at[1], 6), left, left + width))
    assert ends == sorted(ends), "from left to right and from top to bottom"
    for (y, _, right), (other, left, _) in pairwise(ends):
        assert other > y or left > right
    for trace, mark in zip(traces[:2], texts[:2], strict=True):
        assert trace.curve.start[0] < trace.curve.end[0] < mark.at[0]

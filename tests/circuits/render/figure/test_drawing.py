"""A circuit as a picture: what its boxes say, groups, and marks."""

import dataclasses

import networkx as nx
import pytest

from circuits.graph import Node
from circuits.render.figure.drawing import THICKEST, picture, words_of
from circuits.render.figure.figure_config import STYLES, FigureConfig
from circuits.render.figure.marks import Trace
from circuits.saved_state import SavedState
from tests.circuits import synthetic
from tests.circuits.render.figure.test_figure_laws import behind_boxes, unconnected


def test_a_box_names_its_feature():
    shown = picture(synthetic.circuit(60))
    for node, box in shown.drawing.boxes.items():
        if node.kind == "feature":
            assert box.texts[-1] == f"{node.site.partition('.')[2]}/{node.feature}"
    for labels, own in (("names", False), ("ids", True)):
        boxes = picture(synthetic.circuit(60), config=FigureConfig(labels=labels)).drawing.boxes
        named = {n for n in boxes if n.kind == "feature" and synthetic_label(n)}
        assert all((f"/{n.feature}" in boxes[n].texts[-1]) is own for n in named)


def synthetic_label(node):
    return synthetic.circuit(60).nodes[node]["label"]


@pytest.fixture
def grouped():
    graph = synthetic.circuit(80, seed=5)
    features = sorted((n for n in graph if n.kind == "feature"), key=str)
    first, second = features[::9], features[1::9]
    state = SavedState(
        groups={"every ninth": tuple(first), "the next": tuple(second)},
        pinned=(features[2],),
        labels={features[2]: "pinned and named", first[0]: "inside"},
    )
    return graph, state


def test_a_group_is_one_box_with_its_sum_and_edges_are_summed(grouped):
    graph, state = grouped
    shown = picture(graph, max_nodes=60, state=state)
    assert behind_boxes(shown) == []
    for name, members in state.groups.items():
        group = Node("group", name)
        total = -sum(graph.nodes[n]["effect"] for n in members)
        words = shown.drawing.boxes[group].texts
        assert " ".join(words[:-1]) == name
        assert words[-1] == f"{len(members)} features, {total:+.2g}".replace("-", "−")
        assert not set(members) & set(shown.drawing.boxes)
    first, second = (Node("group", name) for name in state.groups)
    a, b = (state.groups[n.feature] for n in (first, second))
    weights = [w for u, v, w in graph.edges(data="weight") if u in a and v in b]
    assert shown.circuit.edges[first, second]["weight"] == pytest.approx(sum(weights))


def test_groups_and_pinned_nodes_are_drawn_with_what_connects_them(grouped):
    graph, state = grouped
    shown = picture(graph, max_nodes=60, state=state)
    (pinned,) = state.pinned
    assert shown.drawing.boxes[pinned].lines[0].startswith("pinned")
    assert {"group"} < {n.kind for n in shown.circuit}
    assert len(shown.circuit) < 20
    assert not unconnected(shown.circuit)


def graph_of(node, **data):
    graph = nx.DiGraph(metric="logit-difference")
    graph.add_node(node, **{"kind": node.kind, "label": "", "effect": -1.0, **data})
    return graph


@pytest.mark.parametrize(
    ("node", "data", "label", "name"),
    [
        (Node("mlp_out.4", 15), {"label": "nouns"}, "nouns", "4/15"),
        (Node("mlp_out.4", 15), {}, "", "4/15"),
        (Node("clt", 15), {}, "", "clt/15"),
        (Node("mlp_out.4", "error"), {"label": "error of mlp_out.4"}, "error", ""),
        (Node("embed", "token", 1), {"token": " keys"}, " keys", ""),
        (Node("logit", " are"), {"probability": 0.4123}, "are", "p = 0.41"),
        (Node("group", "few"), {"label": "few", "members": [1, 2]}, "few", "2 features, +1"),
    ],
)
def test_a_box_says_label_and_what_a_paper_cites(node, data, label, name):
    found = words_of(node, graph_of(node, **data), "both")
    assert (found.label, found.name, found.badge) == (label, name, "")


def test_names_or_ids_alone_and_never_an_empty_box():
    node = Node("mlp_out.4", 15)
    named, plain = graph_of(node, label="nouns"), graph_of(node)
    assert (words_of(node, named, "ids").label, words_of(node, named, "ids").name) == ("", "4/15")
    assert (words_of(node, named, "names").label, words_of(node, named, "names").name) == (
        "nouns",
        "",
    )
    assert words_of(node, plain, "names").name == words_of(node, plain, "ids").name == "4/15"


def test_stronger_edges_lie_on_top_and_those_that_oppose_are_dashed():
    shown = picture(synthetic.circuit(60))
    traces = [mark for mark in shown.marks if isinstance(mark, Trace)]
    assert {mark.stroke.dashed for mark in traces} == {True, False}
    assert max(mark.stroke.width for mark in traces) == pytest.approx(THICKEST)


def test_a_page_that_holds_no_path_says_what_to_try(monkeypatch):
    tiny = dataclasses.replace(STYLES["paper"], pages=(0.5,))
    monkeypatch.setitem(STYLES, "tiny", tiny)
    with pytest.raises(ValueError, match="not even one path of the circuit fits a page of 0.5 in"):
        picture(synthetic.circuit(40), config=FigureConfig(style="tiny"))

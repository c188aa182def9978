"""Laws of every figure: connected, no edge behind a box, text in its box, no taller than a page."""

from itertools import combinations, pairwise

import networkx as nx
import numpy as np
import pytest

from circuits.graph import Node
from circuits.render import ink
from circuits.render.boxes import PAD, PAGES, TALLEST, TEXT
from circuits.render.connected import circuit_of
from circuits.render.drawing import picture
from circuits.render.figure_config import FigureConfig
from circuits.render.interventions import Intervention
from circuits.render.routes import lanes, samples
from circuits.saved_state import SavedState
from tests.circuits import synthetic

SIZES = (5, 9, 16, 25, 40, 60)


def graph_of(seed):
    """Circuits that are deep and shallow, summed and long, sparse and dense."""
    return synthetic.circuit(
        (40, 80, 120, 300)[seed % 4],
        positions="sum" if seed % 3 == 0 else "keep",
        edges_per_node=(2, 4, 9)[seed % 3],
        layers=(2, 6, 24)[(seed // 3) % 3],
        seed=seed,
    )


def long_prompt(graph, tokens=34):
    """The same circuit on a prompt of which most tokens have no node."""
    graph.graph["columns"] = [f" word{i}" for i in range(tokens)]
    move = {n: n._replace(position=tokens - 1 - n.position) for n in graph if n.position}
    return nx.relabel_nodes(graph, move)


def unconnected(circuit):
    """Nodes that are on no path from a token, or a first node where there is none, to an output."""
    begins = [n for n in circuit if n.kind == "token"]
    begins = begins or [n for n in circuit if not circuit.in_degree(n)]
    ends = [n for n in circuit if n.kind == "logit"]
    after = set(begins).union(*(nx.descendants(circuit, n) for n in begins))
    before = set(ends).union(*(nx.ancestors(circuit, n) for n in ends))
    return set(circuit) - (after & before)


def behind_boxes(shown):
    """Edges with a point inside a box."""
    boxes = [(b.left, b.right, b.top, b.bottom) for b in shown.drawing.boxes.values()]
    left, right, top, bottom = np.array(boxes).T[:, :, None]
    found = []
    for edge, curve in shown.curves.items():
        x, y = np.array(samples(curve)).T
        inside = (x > left) & (x < right) & (y > top + 1e-6) & (y < bottom - 1e-6)
        found += [edge] * bool(inside.any())
    return found


@pytest.mark.parametrize("seed", range(24))
def test_every_figure_is_one_that_a_paper_can_print(seed):
    graph = graph_of(seed)
    shown = picture(graph, max_nodes=SIZES[seed % len(SIZES)])
    assert_printable(shown)


def assert_printable(shown):
    drawing = shown.drawing
    assert not unconnected(shown.circuit)
    assert set(drawing.boxes) == set(shown.circuit)
    assert set(shown.curves) == set(shown.circuit.edges)
    assert behind_boxes(shown) == []
    assert drawing.width in [pytest.approx(page) for page in PAGES]
    assert drawing.height <= TALLEST
    for node, box in drawing.boxes.items():
        point = 0.05 if node.kind == "error" else 0.0
        room = box.width - 2 * (PAD + point) + 1e-9
        assert all(ink.measure(text, TEXT) <= room for text in box.texts)
        assert drawing.axis <= box.left
        assert box.right <= drawing.width
        assert 0 <= box.top < box.bottom <= drawing.height
    for a, b in combinations(drawing.boxes.values(), 2):
        aside = a.right <= b.left + 1e-9 or b.right <= a.left + 1e-9
        assert aside or a.bottom <= b.top + 1e-9 or b.bottom <= a.top + 1e-9
    for (source, target), curve in shown.curves.items():
        start, end = drawing.boxes[source], drawing.boxes[target]
        assert start.left < curve.start[0] < start.right
        assert curve.start[1] == start.top
        assert end.left < curve.end[0] < end.right
        assert curve.end[1] == end.bottom
        x, y = np.array(samples(curve)).T
        assert drawing.axis <= x.min() <= x.max() <= drawing.width
        assert 0 <= y.min() <= y.max() <= drawing.height


@pytest.mark.parametrize("n", range(5, 61, 5))
def test_a_figure_is_connected_at_every_size(n):
    graph = synthetic.circuit(200, seed=3)
    circuit = circuit_of(graph, n)
    assert not unconnected(circuit)
    assert len(circuit) <= n


def test_strongest_nodes_come_first():
    graph = synthetic.circuit(200)
    on_a_path = set(graph) - unconnected(graph)
    ranked = sorted(on_a_path, key=lambda n: -abs(graph.nodes[n]["effect"] or 0.0))
    assert set(ranked[:3]) <= set(circuit_of(graph, 25))


def test_each_node_keeps_its_strongest_edge_in_and_out():
    circuit = circuit_of(graph := synthetic.circuit(200), 25)
    full = nx.DiGraph(graph.subgraph(circuit))
    for node in circuit:
        for edges in (full.in_edges, full.out_edges):
            if found := sorted(edges(node, data="weight"), key=lambda e: -abs(e[2])):
                assert circuit.has_edge(*found[0][:2])


def test_without_a_token_paths_begin_where_nothing_leads():
    graph = synthetic.circuit(80)
    graph.remove_nodes_from([n for n in graph if n.kind == "token"])
    assert not unconnected(circuit_of(graph, 25))


def test_a_graph_that_leads_nowhere_gives_its_strongest_nodes():
    graph = synthetic.circuit(20)
    graph.remove_edges_from(list(graph.edges))
    assert len(circuit_of(graph, 8)) == 8


def test_ablated_nodes_are_drawn_and_say_what_was_done():
    graph = synthetic.circuit(60)
    gone = next(n for n in graph if n.kind == "feature")
    graph.remove_edges_from([*graph.in_edges(gone), *graph.out_edges(gone)])
    graph.nodes[gone].update(ablated="zero", effect=0.0)
    shown = picture(graph, intervention=Intervention(what="×0", before=4.98, after=-0.81))
    assert shown.drawing.boxes[gone].badge == "×0"
    output = next(n for n in shown.circuit if n.kind == "logit")
    assert shown.drawing.boxes[output].badge == "×0: 4.98 → −0.81"


def test_columns_without_nodes_are_folded():
    graph = long_prompt(synthetic.circuit(60))
    shown = picture(graph)
    assert_printable(shown)
    used = {n.position for n in shown.circuit if n.position is not None}
    folded = [" ".join(h.lines) for h in shown.drawing.heads if h.folded]
    assert "… 22 tokens …" in folded
    assert len(shown.drawing.heads) < 34
    for position in used:
        assert any(f"word{position}" in " ".join(h.lines) for h in shown.drawing.heads)


@pytest.mark.parametrize("width", PAGES)
def test_a_page_of_some_width_has_as_many_nodes_as_fit_and_says_so(width):
    graph = synthetic.circuit(300, layers=24, seed=1)
    shown = picture(graph, max_nodes=60, config=FigureConfig(width=width))
    assert_printable(shown)
    assert shown.drawing.width == pytest.approx(width)
    assert len(shown.circuit) < 60
    assert "more do not fit" in shown.legend[-1][-1]


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


def test_lanes_keep_their_order_their_room_and_their_distance():
    found = lanes([0.5, 0.5, 0.5, 0.9], (0.0, 1.0), 0.1)
    assert found == sorted(found)
    assert all(b - a >= 0.1 - 1e-9 for a, b in pairwise(found))
    crowded = lanes([5.0] * 30, (0.0, 1.0), 0.1)
    assert crowded[0] >= 0
    assert crowded[-1] <= 1
    assert len(set(crowded)) == 30

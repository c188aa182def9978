"""Laws of every figure: connected, no edge behind a box, text in its box, no taller than a page."""

from itertools import combinations, pairwise

import networkx as nx
import numpy as np
import pytest

from circuits.graph import Node, ordered
from circuits.render.connected import circuit_of
from circuits.render.figure import ink
from circuits.render.figure.boxes import PAGES, TALLEST
from circuits.render.figure.compared import comparison
from circuits.render.figure.drawing import FOLD, picture
from circuits.render.figure.figure_config import FigureConfig
from circuits.render.figure.marks import Rect
from circuits.render.figure.routes import samples
from circuits.render.figure.sheet import PAD, TEXT
from circuits.render.interventions import Intervention
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


def test_a_comparison_draws_what_changed_most():
    """Of two circuits that differ in a few weak nodes these come first; no legend overflows."""
    one = synthetic.circuit(120)
    others = set(one) - unconnected(one) - set(circuit_of(one, 25))
    changed = [n for n in ordered(one) if n.kind == "feature" and n in others][::6]
    other = one.copy()
    for node in changed:
        other.nodes[node]["effect"] *= 1.3
    both = comparison(one, other, ("a run of a long name", "another run of a long name"))
    shown = picture(both, max_nodes=25, config=FigureConfig(width=3.3))
    assert len(changed) > 3
    assert set(changed) <= set(circuit_of(both, 25))
    assert not unconnected(shown.circuit)
    for words in shown.legend[1:]:
        assert all(ink.measure(text, TEXT) <= 3.3 for text in words)
    assert shown.drawing.height <= TALLEST


def chain(length, units="logit-difference"):
    """A token, `length` features each in the layer above, the output; every third edge opposes."""
    graph = nx.DiGraph(metric="logit-difference", edge_units=units, columns=["The", " keys"])
    names = ["token@1", *(f"mlp_out.{i}/{i}@1" for i in range(length)), "logit/ are"]
    for index, node in enumerate(map(Node.parse, names)):
        effect = None if node.kind == "logit" else -1.0 - (7 * index) % 5
        graph.add_node(node, kind=node.kind, token=" keys", activation=1.0, effect=effect,
                       exact=None, label="")  # fmt: skip
    for index, edge in enumerate(pairwise(graph)):
        graph.add_edge(*edge, weight=(1.0 if index % 3 == 1 else -1.0) * (1 + index % 4))
    return graph


@pytest.mark.parametrize("n", range(2, 13))
@pytest.mark.parametrize("units", ["logit-difference", "pre-activation of the target"])
def test_where_no_path_is_so_short_edges_stand_for_stretches_of_one(n, units):
    graph = chain(10, units)
    shown = picture(graph, max_nodes=n)
    circuit = shown.circuit
    assert len(circuit) == n
    assert_printable(shown)
    strongest = sorted(graph, key=lambda k: -abs(graph.nodes[k]["effect"] or 0.0))
    assert set(strongest[: n - 2]) <= {*circuit, Node("embed", "token", 1)} or n == 2
    through = 0
    for source, target, data in circuit.edges(data=True):
        way = nx.shortest_path(graph, source, target)
        weights = [graph.edges[edge]["weight"] for edge in pairwise(way)]
        assert data.get("via", ()) == tuple(way[1:-1])
        assert abs(data["weight"]) == min(map(abs, weights))
        signs = weights if "pre-activation" in units else weights[:1]
        assert np.sign(data["weight"]) == np.prod(np.sign(signs))
        through += len(way) - 2
    assert len(circuit) + through == len(graph)
    folds = [len(via) for _, _, via in circuit.edges(data="via") if via]
    circles = [mark for mark in shown.marks if isinstance(mark, Rect) and mark.width == FOLD]
    assert len(circles) == len(folds)
    span = f"{min(folds)} to {max(folds)}" if len({*folds}) > 1 else f"{max(folds, default=0)}"
    assert (f"○: by way of {span} node" in shown.legend[-1][-1]) == bool(folds)
    for x, y in (mark.corner for mark in circles):
        for box in shown.drawing.boxes.values():
            assert not (box.left < x + FOLD and x < box.right and box.top < y + FOLD < box.bottom)


@pytest.mark.parametrize("seed", range(0, 24, 3))
def test_a_slide_has_three_sites_between_tokens_and_outputs_and_is_connected(seed):
    shown = picture(graph_of(seed), max_nodes=25, config=FigureConfig(style="slides"))
    assert not unconnected(shown.circuit)
    assert len(shown.circuit) <= 25
    assert behind_boxes(shown) == []
    assert len({n.site for n in shown.circuit if n.kind in ("feature", "error")}) <= 3
    assert shown.drawing.width * shown.scale == pytest.approx(13.33)
    assert shown.drawing.height * shown.scale <= 7.5
    assert TEXT * shown.scale == pytest.approx(18)


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

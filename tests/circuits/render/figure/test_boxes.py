"""From the layout to a printed sheet: boxes in lines and columns, on the narrowest page."""

from itertools import combinations, pairwise

import pytest

from circuits.render.figure.boxes import PAGES, TALLEST, band_name, sheet
from circuits.render.figure.drawing import words_of
from circuits.render.figure.sheet import FOOT
from circuits.render.layout import layout
from tests.circuits import synthetic


def sheet_of(graph, **options):
    words = {node: words_of(node, graph, "both") for node in graph}
    return sheet(graph, layout(graph), words, **options)


@pytest.mark.parametrize("n", [6, 12, 20])
def test_no_box_lies_on_another_and_all_lie_on_the_page(n):
    graph = synthetic.circuit(n)
    found = sheet_of(graph)
    assert set(found.boxes) == set(graph)
    for a, b in combinations(found.boxes.values(), 2):
        apart = a.right <= b.left or b.right <= a.left or a.bottom <= b.top or b.bottom <= a.top
        assert apart
    for box in found.boxes.values():
        assert found.axis <= box.left
        assert box.right <= found.width
        assert box.bottom <= found.height <= TALLEST
    assert found.width in PAGES


def test_no_box_reaches_into_the_channel_between_two_lines():
    found = sheet_of(synthetic.circuit(20))
    lines = sorted(found.lines, key=lambda line: line.top)
    assert all(above.bottom < below.top for above, below in pairwise(lines))
    for line in lines:
        for node in line.nodes:
            assert line.top <= found.boxes[node].top
            assert found.boxes[node].bottom <= line.bottom + 1e-9


def test_a_page_that_is_too_small_holds_nothing_and_a_foot_makes_it_taller():
    graph = synthetic.circuit(20)
    assert sheet_of(graph, pages=(0.5,)) is None
    assert sheet_of(graph, tallest=0.5) is None
    plain, footed = (sheet_of(graph, pages=PAGES[1:], foot=lambda _, more=m: FOOT + more)
                     for m in (0.0, 0.5))  # fmt: skip
    assert footed.height >= plain.height


def test_bands_of_inputs_and_outputs_have_names_of_their_own():
    names = {band_name(band) for band in layout(synthetic.circuit(30)).bands}
    assert {"output", "tokens"} <= names
    assert not {"logit", "embed"} & names

"""The figure is the same on every run, parses, and keeps every text inside its box."""

from itertools import combinations
from xml.etree import ElementTree

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen

from circuits.graph import Node
from circuits.render import ink
from circuits.render.boxes import PAD, PAGES, TEXT, sheet
from circuits.render.figure import curves_figure, figure, strongest, undrawable
from circuits.render.layout import layout
from tests.circuits import synthetic

NAMES = ["circuit.svg", "circuit.pdf"]


@pytest.mark.parametrize("name", NAMES)
def test_two_runs_give_the_same_bytes(tmp_path, name):
    for folder in ("a", "b"):
        figure(synthetic.circuit(60), tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_the_user_style_does_not_reach_the_figure(tmp_path):
    import matplotlib

    figure(synthetic.circuit(20), tmp_path / "plain.svg")
    with matplotlib.rc_context(
        {"font.size": 30, "svg.fonttype": "none", "lines.dash_capstyle": "round"}
    ):
        figure(synthetic.circuit(20), tmp_path / "styled.svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "plain.svg").read_bytes() == (tmp_path / "styled.svg").read_bytes()


def test_svg_is_xml_of_the_width_of_a_column(tmp_path):
    figure(synthetic.circuit(60, positions="sum"), tmp_path / "circuit.svg", max_nodes=6)
    root = ElementTree.parse(tmp_path / "circuit.svg").getroot()
    assert root.tag.endswith("svg")
    assert root.get("width") == f"{PAGES[0] * ink.POINTS:g}pt"


def test_what_would_be_a_tower_in_one_column_takes_two():
    circuit = strongest(synthetic.circuit(60, positions="sum"), 25)
    drawn = sheet(circuit, layout(circuit))
    assert drawn.width == pytest.approx(PAGES[1])
    assert drawn.height < drawn.width


def test_many_columns_take_the_width_of_the_page():
    circuit = strongest(synthetic.circuit(60), 25)
    assert sheet(circuit, layout(circuit)).width == pytest.approx(PAGES[1])


@pytest.mark.parametrize("positions", ["keep", "sum"])
@pytest.mark.parametrize("n", [1, 9, 25])
def test_text_stays_in_its_box_and_boxes_apart_and_on_the_sheet(n, positions):
    graph = synthetic.circuit(80, positions=positions)
    label = "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichen $x_1$"
    longest = Node("mlp_out.2", 1, None if positions == "sum" else 3)
    graph.add_node(longest, kind="feature", effect=-99.0, label=label)
    circuit = strongest(graph, n)
    drawing = sheet(circuit, layout(circuit))
    assert len(drawing.boxes) == len(circuit)
    for box in drawing.boxes.values():
        assert max(ink.measure(line, TEXT) for line in box.lines) <= box.width - 2 * PAD + 1e-9
        assert drawing.axis <= box.left
        assert box.left + box.width <= drawing.width
        assert 0 <= box.top < box.bottom <= drawing.height
    for a, b in combinations(drawing.boxes.values(), 2):
        aside = a.left + a.width <= b.left + 1e-9 or b.left + b.width <= a.left + 1e-9
        assert aside or a.bottom <= b.top + 1e-9 or b.bottom <= a.top + 1e-9


def test_the_figure_follows_the_layout_it_is_given():
    graph = synthetic.circuit(60)
    circuit, places = strongest(graph, 25), layout(graph)
    boxes = sheet(circuit, places).boxes
    for one, other in combinations(circuit, 2):
        if places.places[one].band < places.places[other].band:
            assert boxes[one].bottom < boxes[other].top


def test_the_strongest_nodes_are_kept_with_their_strongest_edges():
    graph = synthetic.circuit(200)
    circuit = strongest(graph, 25)
    weakest = min(abs(circuit.nodes[n]["effect"]) for n in circuit if n.kind != "logit")
    left_out = [n for n in graph if n not in circuit]
    assert len(circuit) == 25
    assert all(abs(graph.nodes[n]["effect"]) <= weakest for n in left_out)
    assert Node("logit", " are") in circuit


def test_a_glyph_that_no_font_has_is_written_as_its_code_point():
    assert ink.drawable("a\ufdd0") == "a\\ufdd0"


def test_folding_keeps_to_the_room_and_marks_what_it_cut():
    lines = ink.fold("one two three four five six seven", 6.0, 0.5, 2)
    assert len(lines) == 2
    assert lines[-1].endswith("…")
    assert all(ink.measure(line, 6.0) <= 0.5 for line in lines)


@pytest.mark.parametrize("draw", [figure, curves_figure])
def test_another_suffix_is_refused_with_the_list(tmp_path, draw):
    graph = synthetic.circuit(9)
    what = graph if draw is figure else synthetic.verification(graph)
    with pytest.raises(ValueError, match=r"\.svg or \.pdf, got 'circuit\.png'"):
        draw(what, tmp_path / "circuit.png")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def toy_font(tmp_path, monkeypatch):
    """A font of one Chinese character that was installed after matplotlib made its list."""

    def install(character):
        pen = TTGlyphPen(None)
        for point in ((0, 0), (0, 500), (500, 500)):
            (pen.lineTo if point != (0, 0) else pen.moveTo)(point)
        pen.closePath()
        builder = FontBuilder(1000)
        builder.setupGlyphOrder([".notdef", "one"])
        builder.setupCharacterMap({ord(character): "one"})
        builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "one": pen.glyph()})
        builder.setupHorizontalMetrics({".notdef": (500, 0), "one": (500, 0)})
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": "Toy CJK", "styleName": "Regular"})
        builder.setupOS2()
        builder.setupPost()
        builder.save(tmp_path / "toy.ttf")
        monkeypatch.setattr(
            ink.font_manager, "findSystemFonts", lambda: [str(tmp_path / "toy.ttf")]
        )

    fonts = [f for f in ink.font_manager.fontManager.ttflist if "DejaVu" in f.name]
    monkeypatch.setattr(ink.font_manager.fontManager, "ttflist", fonts)
    monkeypatch.setattr(ink.font_manager, "findSystemFonts", lambda: [])
    caches = [found for found in vars(ink).values() if hasattr(found, "cache_clear")]
    for cached in caches:
        cached.cache_clear()
    yield install
    for cached in caches:
        cached.cache_clear()


def test_any_font_that_has_chinese_is_used(toy_font, tmp_path):
    toy_font("中")
    assert ink.families() == ("DejaVu Sans", "Toy CJK")
    assert ink.drawable("a中") == "a中"
    circuit = synthetic.circuit(10)
    circuit.graph["columns"] = ["中"] * len(circuit.graph["columns"])
    figure(circuit, tmp_path / "circuit.pdf")
    assert "中" not in undrawable(circuit)


def test_without_one_what_cannot_be_drawn_is_told(toy_font, caplog):
    assert ink.drawable("a中") == "a\\u4e2d"
    circuit = synthetic.circuit(10)
    circuit.graph["columns"] = ["中文中"] * len(circuit.graph["columns"])
    found = undrawable(circuit)
    assert found[-2:] == ["中", "文"]
    assert not caplog.records

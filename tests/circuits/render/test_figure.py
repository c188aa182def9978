"""The figure is the same on every run, parses, and keeps every text inside its box."""

import re
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


@pytest.mark.parametrize("name", ["curves.svg", "curves.pdf"])
def test_the_curves_are_the_same_bytes_too(tmp_path, name):
    record = synthetic.verification(synthetic.circuit(40))
    for folder in ("a", "b"):
        curves_figure(record, tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_held_out_prompts_have_a_panel_and_rows_keep_their_colour(tmp_path):
    record = synthetic.verification(synthetic.circuit(40))
    curves_figure(record | {"held_out": None}, tmp_path / "without.svg")
    rows = record["held_out"]["rows"]
    del rows[list(rows)[1]]
    curves_figure(record, tmp_path / "with.svg")
    panels = {name: _axes(tmp_path / f"{name}.svg") for name in ("with", "without")}
    assert len(panels["with"]) == len(panels["without"]) + 1
    own, held_out = (_colours(panel) for panel in panels["with"][:2])
    assert held_out == [own[0], *own[2 : 1 + len(rows)]]


def test_all_rows_that_verify_writes_are_told_apart_and_named(tmp_path, monkeypatch):
    record = synthetic.verification(synthetic.circuit(40))
    row = next(iter(record["curves"]["rows"].values()))
    names = ["circuit", "circuit, no attn or mlp errors", "circuit without errors"]
    names += ["random nodes, same sites", "random nodes", "random features", "neurons"]
    names += ["neurons, inside the MLPs", "features, neurons inside the MLPs"]
    names += ["features, neurons inside the MLPs, no errors", "untrained dictionaries"]
    names += ["untrained dictionaries, no errors"]
    record["curves"]["rows"] = dict.fromkeys(names, row)
    record["held_out"]["rows"] = {"circuit": row}
    drawn = []
    monkeypatch.setattr(ink, "save", lambda figure, path: drawn.append(figure))
    curves_figure(record, tmp_path / "curves.svg")
    (figure,) = drawn
    assert (
        len({line.get_color() for line in figure.axes[0].lines if len(line.get_xdata()) > 2}) == 12
    )
    legend, page = figure.legends[0].get_window_extent(), figure.bbox
    assert legend.x1 <= page.x1
    assert legend.y0 >= figure.axes[0].get_window_extent().y1


def test_the_first_row_of_every_panel_has_its_interval(tmp_path):
    record = synthetic.verification(synthetic.circuit(40))
    curves_figure(record, tmp_path / "with.svg")
    for row in record["curves"]["rows"].values():
        del row["completeness_low"]
    curves_figure(record, tmp_path / "without.svg")
    texts = [(tmp_path / f"{name}.svg").read_text() for name in ("with", "without")]
    assert [text.count('id="FillBetweenPolyCollection_') for text in texts] == [3, 2]


def _colours(panel):
    """Of the curves of a panel, in the order in which they were drawn."""
    styles = [path.get("style") or "" for path in panel]
    found = [re.search(r"stroke: (#[0-9a-f]{6})", s) for s in styles if "stroke-width: 1.1" in s]
    return [match.group(1) for match in found if match]


def _axes(path):
    """For each panel its curves: what is clipped to it."""
    name = "{http://www.w3.org/2000/svg}"
    groups = ElementTree.parse(path).getroot().iter(f"{name}g")
    panels = [g for g in groups if (g.get("id") or "").startswith("axes_")]
    return [[p for p in g.iter(f"{name}path") if p.get("clip-path")] for g in panels]


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


def test_a_verification_without_content_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no curves and no points"):
        curves_figure({"schema": "verification/1"}, tmp_path / "curves.svg")


def test_curves_alone_and_points_alone_are_drawn(tmp_path):
    record = synthetic.verification(synthetic.circuit(20))
    curves_figure({"curves": record["curves"]}, tmp_path / "curves.svg")
    curves_figure({"nodes": record["nodes"]}, tmp_path / "points.svg")
    assert all(ElementTree.parse(path) for path in tmp_path.iterdir())


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
    caches = (ink.families, ink.has_glyph, ink._charmap, ink._characters, ink.measure)
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

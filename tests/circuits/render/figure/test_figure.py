"""The figure is the same on every run, parses, and has the fonts that it needs."""

import re
from base64 import b64decode
from io import BytesIO
from itertools import combinations
from xml.etree import ElementTree

import pytest
from fontTools.ttLib import TTFont

from circuits.render.figure import ink
from circuits.render.figure.boxes import PAGES
from circuits.render.figure.drawing import picture
from circuits.render.figure.figure import curves_figure, figure
from circuits.render.figure.figure_config import FigureConfig
from circuits.render.layout import layout
from tests.circuits import synthetic

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["circuit.svg", "circuit.pdf", "circuit.png"]


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
    graph = synthetic.circuit(60, positions="sum")
    narrow = picture(graph, max_nodes=25, config=FigureConfig(width=PAGES[0])).drawing
    drawn = picture(graph, max_nodes=25).drawing
    assert drawn.width == pytest.approx(PAGES[1])
    assert drawn.height < narrow.height


def test_many_columns_take_the_width_of_the_page():
    drawn = picture(synthetic.circuit(60), max_nodes=25).drawing
    assert drawn.width == pytest.approx(PAGES[1])


def test_the_figure_follows_the_layout_it_is_given():
    graph = synthetic.circuit(60)
    places = layout(graph)
    boxes = picture(graph, max_nodes=25, layout=places).drawing.boxes
    for one, other in combinations(boxes, 2):
        if places.places[one].band < places.places[other].band:
            assert boxes[one].bottom < boxes[other].top


def _texts(path):
    return [e.text for e in ElementTree.parse(path).getroot().iter(f"{SVG}text")]


def test_text_of_an_svg_is_text_and_its_glyphs_are_inside(tmp_path):
    figure(synthetic.circuit(60), tmp_path / "text.svg")
    outlines = FigureConfig(letters="outlines")
    figure(synthetic.circuit(60), tmp_path / "outlines.svg", config=outlines)
    written = _texts(tmp_path / "text.svg")
    assert "25 of 60 nodes" in " ".join(written)
    assert _texts(tmp_path / "outlines.svg") == []
    content = (tmp_path / "text.svg").read_text()
    faces = re.findall(r'font-family: "([^"]+)"; src: url\(data:font/woff;base64,([^)]+)', content)
    known = {name: TTFont(BytesIO(b64decode(data))).getBestCmap() for name, data in faces}
    assert {ord(c) for c in "".join(written) if ink.has_glyph(c)} <= set().union(*known.values())
    assert len(known["DejaVu Sans"]) < 120


def test_no_text_is_smaller_than_journals_take(tmp_path):
    figure(synthetic.circuit(60), tmp_path / "text.svg")
    sizes = re.findall(r"font-size: ([0-9.]+)px", (tmp_path / "text.svg").read_text())
    assert min(map(float, sizes)) >= 6.5
    root = ElementTree.parse(tmp_path / "text.svg").getroot()
    # One unit of the drawing is one point on paper.
    assert root.get("viewBox").split()[2] == root.get("width").removesuffix("pt")


def test_slides_have_larger_text_on_a_wide_page(tmp_path):
    figure(synthetic.circuit(60), tmp_path / "a.svg", config=FigureConfig(style="slides"))
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    sizes = re.findall(r"font-size: ([0-9.]+)px", (tmp_path / "a.svg").read_text())
    assert min(map(float, sizes)) == 18
    assert float(root.get("width").removesuffix("pt")) == pytest.approx(13.33 * 72, rel=1e-3)
    assert float(root.get("height").removesuffix("pt")) <= 7.5 * 72


@pytest.mark.parametrize("draw", [figure, curves_figure])
def test_another_suffix_is_refused_with_the_list(tmp_path, draw):
    graph = synthetic.circuit(9)
    what = graph if draw is figure else synthetic.verification(graph)
    with pytest.raises(ValueError, match=r"\.svg, \.pdf, \.png, got 'circuit\.gif'"):
        draw(what, tmp_path / "circuit.gif")
    assert list(tmp_path.iterdir()) == []

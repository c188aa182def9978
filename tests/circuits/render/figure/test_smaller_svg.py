"""A smaller SVG is the same picture: every text and every rectangle where it was, as it was."""

import re
from io import StringIO
from xml.etree import ElementTree

import pytest
from matplotlib.patches import Rectangle

from circuits.render.figure import ink
from circuits.render.figure.smaller_svg import smaller

SVG = "{http://www.w3.org/2000/svg}"
STYLE = {"font-family", "font-size", "font-weight", "text-anchor", "fill"}


@pytest.fixture(scope="module")
def drawn():
    """Texts of two sizes, colours, weights and three anchors, one upright; rectangles; a line."""
    with ink.fixed_style():
        picture = ink.blank(3.0, 2.0)
        axes = picture.add_axes((0, 0, 1, 1))
        for i in range(8):
            axes.text(0.1 * i, 0.3, f"{i} a<b", ha="center", size=6.5)
            axes.add_patch(Rectangle((0.1 * i, 0.1), 0.08, 0.1, facecolor=f"C{i}", edgecolor="k"))
        axes.text(0.2, 0.5, "left", ha="left", size=9, color="white", weight="bold")
        axes.text(0.2, 0.6, "right", ha="right", size=6.5, color="#5a6572")
        axes.text(0.2, 0.8, "upright", rotation=90)
        axes.plot([0, 0.3, 0.9], [0.1, 0.7123456, 0.4])
        made = StringIO()
        picture.savefig(made, format="svg", metadata=ink.METADATA[".svg"])
    return made.getvalue()


def texts(svg):
    """Every text with the style that it has or inherits, and where it stands."""
    found = []

    def walk(element, style):
        own = re.findall(r"([\w-]+): ([^;]+)", element.get("style", ""))
        style = style | {name: value for name, value in own if name in STYLE}
        if element.tag == f"{SVG}text":
            # What is turned by nothing stands where it says.
            turned = re.sub(r"rotate\(-?0 .*", "", element.get("transform", ""))
            numbers = re.findall(r"-?[\d.]+", turned)
            at = [*(element.get(k, "0") for k in "xy"), *numbers]
            found.append((element.text, style, [float(n) for n in at]))
        for child in element:
            walk(child, style)

    walk(ElementTree.fromstring(svg), {"text-anchor": "start"})
    return found


def corners(svg):
    """The corners of every outline that is closed, as fill, then places."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        x = y = 0.0
        places = []
        for step, rest in re.findall(r"([MLHVz])([^MLHVz]*)", path.get("d")):
            numbers = [float(n) for n in rest.split()]
            if step == "z":
                found.append((path.get("style"), places))
                places = []
                continue
            x, y = {"H": [*numbers, y], "V": [x, *numbers]}.get(step, numbers)
            places.append((x, y))
    return found


def test_texts_are_what_and_where_they_were(drawn):
    before, after = texts(drawn), texts(smaller(drawn))
    assert len(before) > 11
    for (text, style, at), (other, other_style, there) in zip(before, after, strict=True):
        assert (text, style) == (other, other_style)
        assert there == pytest.approx(at, abs=0.0051)


def test_rectangles_are_where_they_were(drawn):
    before, after = corners(drawn), corners(smaller(drawn))
    assert len(before) >= 8
    for (fill, places), (other, there) in zip(before, after, strict=True):
        assert fill == other
        assert len(places) == len(there) == 4
        for one, two in zip(places, there, strict=True):
            assert two == pytest.approx(one, abs=0.0051)


def test_it_is_smaller_and_nothing_is_left_to_shorten(drawn):
    once = smaller(drawn)
    assert len(once) < 0.6 * len(drawn)
    assert "patch_" not in once
    assert "rotate(-0" not in once
    assert smaller("<svg/>") == "<svg/>"

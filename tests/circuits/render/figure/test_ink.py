"""Glyphs, fonts and folded words."""

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager

from circuits.render.figure import ink
from circuits.render.figure.figure import figure, undrawable
from tests.circuits import synthetic


def test_a_glyph_that_no_font_has_is_written_as_its_code_point():
    assert ink.drawable("a\ufdd0") == "a\\ufdd0"


def test_a_font_of_placeholders_has_no_character():
    assert not any(family.startswith("Last Resort") for family in ink.families())


def test_folding_keeps_to_the_room_and_marks_what_it_cut():
    lines = ink.fold("one two three four five six seven", 6.0, 0.5, 2)
    assert len(lines) == 2
    assert lines[-1].endswith("…")
    assert all(ink.measure(line, 6.0) <= 0.5 for line in lines)


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
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(tmp_path / "toy.ttf")])

    fonts = [f for f in font_manager.fontManager.ttflist if "DejaVu" in f.name]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [])
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

"""A font inside a file has the glyphs that were asked for, and is the same each time."""

from base64 import b64decode
from io import BytesIO

from fontTools.ttLib import TTFont
from matplotlib import font_manager

from circuits.render.figure.fonts import font_face

PATH = str(font_manager.findfont("DejaVu Sans"))


def test_it_has_the_glyphs_of_its_characters_and_no_others():
    rule = font_face("DejaVu Sans", PATH, frozenset("a−b"))
    assert rule.startswith('@font-face {font-family: "DejaVu Sans"; src: url(data:font/woff;')
    data = rule.partition("base64,")[2].partition(")")[0]
    with TTFont(BytesIO(b64decode(data))) as font:
        assert {*font.getBestCmap()} == {*map(ord, "a−b")}


def test_it_is_the_same_each_time():
    made = []
    for _ in range(2):
        font_face.cache_clear()
        made.append(font_face("DejaVu Sans", PATH, frozenset("Layer 12")))
    assert made[0] == made[1]

"""Fonts inside a file: the glyphs that its text needs, and no others."""

from base64 import b64encode
from functools import lru_cache
from io import BytesIO

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

LAYOUT = {"GDEF", "GPOS", "GSUB", "kern"}
"Tables of which no feature is kept: to read them takes four fifths of the time."


@lru_cache(maxsize=64)
def font_face(family: str, path: str, characters: frozenset[str]) -> str:
    """A CSS rule that gives `family` the glyphs of `characters`, taken from the font at `path`.

    It is kept for the next figure of the same characters: a font for Chinese takes half a second.
    """
    options = Options(hinting=False, layout_features=[], notdef_outline=True, name_IDs=[1, 2])
    options.drop_tables += ["FFTM"]  # FontForge's own time stamp, of which fontTools warns
    with TTFont(path, fontNumber=0, recalcTimestamp=False) as font:
        for table in LAYOUT & {*font.keys()}:
            del font[table]
        subsetter = Subsetter(options)
        subsetter.populate(text="".join(sorted(characters)))
        subsetter.subset(font)
        font.flavor = "woff"
        made = BytesIO()
        font.save(made)
    data = b64encode(made.getvalue()).decode("ascii")
    return (
        f'@font-face {{font-family: "{family}"; '
        f'src: url(data:font/woff;base64,{data}) format("woff")}}'
    )

"""A figure as TikZ, from the same marks: `\\input{graph.tex}` in any document that uses tikz."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from circuits.render.figure.drawing import Picture
from circuits.render.figure.marks import Mark, Rect, Shape, Stroke, TextMark, Trace
from circuits.render.figure.routes import BezierCurve, Point
from circuits.render.figure.sheet import TEXT
from hooked_qwen.files import write_text_atomically

DASH = (3.0, 1.6)  # of the line's width, as in the other formats
RISE = 0.0307  # in, from the baseline to the middle of a capital of 6.5 points
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "{''}",
    "`": r"\textasciigrave{}",
    "-": "{-}",  # two or three would become a dash
    "\N{RIGHTWARDS ARROW}": r"$\rightarrow$",
    "\N{MINUS SIGN}": "$-$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{WHITE CIRCLE}": r"$\circ$",
    "\N{HORIZONTAL ELLIPSIS}": r"\ldots{}",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{LEFT SINGLE QUOTATION MARK}": r"\textquoteleft{}",
    "\N{RIGHT SINGLE QUOTATION MARK}": r"\textquoteright{}",
    "\N{EN DASH}": r"\textendash{}",
    "\N{EM DASH}": r"\textemdash{}",
    "\N{NO-BREAK SPACE}": "~",
    "\N{RETURN SYMBOL}": r"$\hookleftarrow$",
}
ACCENTS = "\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327"
LETTERS = "ßæÆøØœŒłŁ"
"Letters of Latin that TeX's first font encoding has; and all with these accents."
PREAMBLE = r"""% Draws the circuit: \usepackage{tikz} and \input this file.
% The size of its text is exact with scalable fonts: \usepackage[T1]{fontenc}\usepackage{lmodern}
\begingroup
% A character that pdfTeX's fonts may lack is its code point there, and itself in XeTeX and LuaTeX.
\def\codepoint#1#2{\ifdefined\Umathchar#2\else{\ttfamily\char92 u#1}\fi}%
"""


def escaped(text: str) -> str:
    """Text that TeX prints as it is, whatever it holds."""
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if found := SPECIAL.get(character):
        return found
    if character.isascii():
        return character if character.isprintable() else f"\\codepoint{{{ord(character):04X}}}{{}}"
    base, *marks = unicodedata.normalize("NFD", character)
    if character in LETTERS or (base.isascii() and len(marks) == 1 and marks[0] in ACCENTS):
        return character
    return f"\\codepoint{{{ord(character):04X}}}{{{character}}}"


def write_tikz(shown: Picture, path: Path) -> None:
    """Write the picture as TikZ, whole or not at all."""
    write_text_atomically(path, tikz(shown))


def tikz(shown: Picture) -> str:
    """The picture as a `tikzpicture`, the same text for the same picture."""
    colours = {colour: f"circuit{i}" for i, colour in enumerate(sorted(_colours(shown.marks)))}
    size = TEXT * shown.scale
    unit = f"{shown.scale:.6g}in"
    corner = _point((shown.drawing.width, shown.drawing.height))
    lines = [
        *(
            rf"\definecolor{{{name}}}{{HTML}}{{{colour.removeprefix('#').upper()}}}%"
            for colour, name in colours.items()
        ),
        rf"\begin{{tikzpicture}}[x={unit}, y=-{unit}, inner sep=0pt, outer sep=0pt,",
        rf"  font=\sffamily\fontsize{{{size:.4g}}}{{{1.2 * size:.4g}}}\selectfont]",
        rf"\useasboundingbox (0,0) rectangle {corner};",
        *(_line(mark, colours, shown.scale) for mark in shown.marks),
        r"\end{tikzpicture}%",
        r"\endgroup",
    ]
    return PREAMBLE + "\n".join(lines) + "\n"


def _colours(marks: Iterable[Mark]) -> set[str]:
    found = set()
    for mark in marks:
        if isinstance(mark, TextMark):
            found.add(mark.colour)
        if isinstance(mark, Rect | Shape):
            found.add(mark.fill)
        if not isinstance(mark, TextMark) and mark.stroke is not None:
            found.add(mark.stroke.colour)
    return found


def _line(mark: Mark, colours: dict[str, str], scale: float) -> str:
    match mark:
        case TextMark():
            anchor = {"center": "base", "left": "base west", "right": "base east"}[mark.anchor]
            at = _point((mark.at[0], mark.at[1] + RISE))
            colour = colours[mark.colour]
            return rf"\node[anchor={anchor}, text={colour}] at {at} {{{escaped(mark.text)}}};"
        case Trace():
            return rf"\draw[{_stroke(mark.stroke, colours, scale)}] {_curve(mark.curve)};"
        case Rect():
            left, top = mark.corner
            way = (
                f"{_point(mark.corner)} rectangle {_point((left + mark.width, top + mark.height))}"
            )
            rounded = f", rounded corners={mark.rounded * scale:.4g}in" if mark.rounded else ""
        case Shape():
            way, rounded = " -- ".join(map(_point, mark.corners)) + " -- cycle", ""
    outline = "" if mark.stroke is None else f", draw, {_stroke(mark.stroke, colours, scale)}"
    return rf"\path[fill={colours[mark.fill]}{outline}{rounded}] {way};"


def _stroke(stroke: Stroke, colours: dict[str, str], scale: float) -> str:
    width = stroke.width * scale
    words = f"draw={colours[stroke.colour]}, line width={width:.4g}bp"
    if stroke.dashed:
        on, off = (part * width for part in DASH)
        words += f", dash pattern=on {on:.4g}bp off {off:.4g}bp"
    return words


def _curve(curve: BezierCurve) -> str:
    pieces = (f".. controls {_point(a)} and {_point(b)} .. {_point(c)}" for a, b, c in curve.pieces)
    return " ".join([_point(curve.start), *pieces])


def _point(at: Point) -> str:
    return f"({at[0]:.4f},{at[1]:.4f})"

"""Ink for figures: colours, fonts, measured text, and files that are the same on every run.

Text is set in DejaVu Sans, which matplotlib carries with it. A character that no installed font
can draw is written as its code point, such as `\\u590d`: never as an empty box.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.sax.saxutils import unescape

import matplotlib
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from circuits.render.figure.fonts import font_face
from circuits.render.figure.smaller_svg import smaller
from circuits.render.words import NEUTRAL, OPPOSES, SUPPORTS
from hooked_qwen.files import write_atomically

COLOURS = {SUPPORTS: "#2b6cb0", OPPOSES: "#c2500f", NEUTRAL: "#6b7785"}
SOFT, LINE, STRIPE, DARK = "#5a6572", "#c9d0d8", "#f1f3f6", "#333b45"
POINTS = 72.0  # per inch
PROBES = ("中", "の", "한")
"Characters that tell a font for Chinese, for Japanese, for Korean."
PLACEHOLDERS = "Last Resort"
"A font that has a box for every character; matplotlib carries it too."
FALLBACKS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Hiragino Sans",
    "PingFang SC",
    "Microsoft YaHei",
    "Arial Unicode MS",
)
STYLE: dict[str, Any] = {
    "svg.hashsalt": "qwen-circuits",
    "pdf.fonttype": 42,
    "pdf.compression": 6,
    "text.usetex": False,
    "text.parse_math": False,
    "axes.unicode_minus": True,
    "axes.linewidth": 0.6,
    "lines.solid_capstyle": "butt",
}
METADATA: dict[str, dict[str, Any]] = {
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
    ".png": {"Software": None},
}
PIXELS = 300  # per inch of a .png
LETTERS = {"outlines": "path", "text": "none"}


@contextmanager
def fixed_style(letters: str = "text") -> Iterator[None]:
    """Draw with our settings whatever the user's own matplotlib settings are.

    `letters` of an SVG are `text`, with its font in the file, or `outlines`.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for name, value in (
            STYLE | {"font.family": [*families(), "sans-serif"], "svg.fonttype": LETTERS[letters]}
        ).items():
            matplotlib.rcParams[name] = value  # pyright: ignore[reportArgumentType]
        yield


def checked_suffix(path: Path) -> str:
    """The file type of `path`; raises `ValueError` listing the ones that figures come in."""
    suffix = path.suffix.lower()
    if suffix not in METADATA:
        raise ValueError(
            f"a figure is written as {', '.join(METADATA)}, got {path.name!r}: "
            "rename it to one of them"
        )
    return suffix


def blank(width: float, height: float) -> Figure:
    """An empty figure of `width` x `height` inches, apart from pyplot's global state."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure, whole or not at all, without a date; the suffix gives the file type."""
    kind = checked_suffix(path)
    made = BytesIO()
    figure.savefig(made, format=kind[1:], metadata=METADATA[kind], dpi=PIXELS)
    content = made.getvalue()
    if kind == ".svg":
        content = with_fonts(smaller(content.decode("utf-8"))).encode("utf-8")
    write_atomically(path, lambda partial: partial.write_bytes(content))


def with_fonts(svg: str) -> str:
    """An SVG with the glyphs that its text needs inside: a viewer may lack our fonts."""
    texts = [unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", svg)]
    by_family: dict[str, set[str]] = {}
    for character in sorted(set("".join(texts))):
        family = next((f for f in families() if ord(character) in _charmap(f)), None)
        if family:
            by_family.setdefault(family, set()).add(character)
    faces = [
        font_face(family, str(font_manager.findfont(FontProperties(family=family))), frozenset(of))
        for family, of in by_family.items()
    ]
    if not faces:
        return svg
    style = f'<style type="text/css">{"".join(faces)}</style>'
    return svg.replace("<defs>", f"<defs>\n  {style}", 1)


def tint(colour: str, share: float) -> str:
    """`colour` on white paper, `share` of it."""
    red, green, blue = (1 - share * (1 - channel) for channel in to_rgb(colour))
    return to_hex((red, green, blue))


@cache
def families() -> tuple[str, ...]:
    """DejaVu Sans, then the fonts for CJK that this machine happens to have.

    Where none of the known ones has Chinese, Japanese or Korean, any other that does.
    """
    _find_new_fonts()
    installed = sorted({font.name for font in font_manager.fontManager.ttflist})
    chosen = ["DejaVu Sans", *(name for name in FALLBACKS if name in installed)]
    for probe in PROBES:
        if not any(ord(probe) in _charmap(family) for family in chosen):
            fonts = sorted(font_manager.fontManager.ttflist, key=lambda f: (f.name, f.fname))
            real = (f for f in fonts if not f.name.startswith(PLACEHOLDERS))
            chosen += [f.name for f in real if ord(probe) in _characters(f.fname)][:1]
    return tuple(chosen)


def _find_new_fonts() -> None:
    """Fonts that were installed since matplotlib made its list, once, on first use."""
    known = {font.fname for font in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        with suppress(RuntimeError, OSError):  # a font that matplotlib cannot read
            font_manager.fontManager.addfont(path)


def drawable(text: str) -> str:
    """`text` with every character that no font here can draw written as its code point."""
    return "".join(c if has_glyph(c) else f"\\u{ord(c):04x}" for c in text)


@lru_cache(maxsize=1 << 16)
def measure(text: str, size: float) -> float:
    """Width of one line of drawable `text` at `size` points, in inches."""
    font = FontProperties(family=list(families()), size=size)
    return text_to_path.get_text_width_height_descent(text, font, False)[0] / POINTS


def fold(text: str, size: float, room: float, lines: int) -> list[str]:
    """Drawable `text` in at most `lines` lines no wider than `room` inches, cut with an ellipsis.

    A word wider than the room is broken where the room ends.
    """
    return list(_folded(text, size, room, lines))


@lru_cache(maxsize=1 << 14)
def _folded(text: str, size: float, room: float, lines: int) -> tuple[str, ...]:
    done: list[str] = []
    rest = " ".join(drawable(text).split())
    while rest and len(done) < lines:
        line = _head(rest, size, room, last=len(done) == lines - 1)
        done.append(line)
        rest = rest[len(line) :].lstrip()
    return tuple(done) or ("",)


def _head(text: str, size: float, room: float, *, last: bool) -> str:
    """The longest start of `text` that fits, ending between words when there is a choice."""
    if measure(text, size) <= room:
        return text
    ending = "…" if last else ""

    def is_too_wide(end: int) -> bool:
        return measure(text[:end].rstrip() + ending, size) > room

    end = 1 + bisect_left(range(2, len(text)), True, key=is_too_wide)
    if last:
        return text[:end].rstrip() + ending
    space = text.rfind(" ", 0, end + 1)
    return text[:space] if space > 0 else text[:end]


@cache
def has_glyph(character: str) -> bool:
    """Whether an installed font can draw `character`."""
    return any(ord(character) in _charmap(family) for family in families())


@cache
def _charmap(family: str) -> frozenset[int]:
    try:
        path = font_manager.findfont(FontProperties(family=family), fallback_to_default=False)
    except ValueError:
        return frozenset()
    return _characters(str(path))


@cache
def _characters(path: str) -> frozenset[int]:
    """Those that the font at `path` has; none where it is gone or damaged."""
    try:
        return frozenset(font_manager.get_font(path).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()

"""An SVG of matplotlib in fewer bytes, the same picture.

font        family, and most frequent size and anchor of texts, are said once, at the root
numbers     of paths and of places of text to a hundredth of a point
rectangles  by two corners
groups      none around a text or a path alone, and no text is turned by nothing
"""

import re
from collections import Counter

TEXT = re.compile(r"<text\b[^>]*>")
STYLE = re.compile(r' style="([^"]*)"')
ANCHOR = "text-anchor"
SHARED = ("font-family", "font-size", ANCHOR)
"What the root says for all texts."
ALONE = re.compile(
    r'<g id="(?:text|patch)_\d+">\s*(<text\b[^>]*>[^<]*</text>|<path\b[^>]*/>)\s*</g>'
)
UNTURNED = re.compile(r' transform="rotate\(-?0 [^)]*\)"')
PLACES = re.compile(r' (?:d|x|y)="[^"]*"| transform="translate\([^)]*\)')
NUMBER = re.compile(r"-?\d+\.\d{3,}")
RECTANGLE = re.compile(
    r"M (\S+) (\S+)\s+L (\S+) (\S+)\s+L (\S+) (\S+)\s+L (\S+) (\S+)\s+(?:L \1 \2\s+)?z"
)


def smaller(svg: str) -> str:
    """The same picture; what is not as matplotlib writes it stays as it is."""
    svg = ALONE.sub(r"\1", svg)
    svg = PLACES.sub(lambda place: NUMBER.sub(_rounded, place.group()), svg)
    svg = RECTANGLE.sub(_rectangle, svg)
    texts = [_style(text) for text in TEXT.findall(svg)]
    if not texts:
        return svg
    root = {name: Counter(one[name] for one in texts).most_common(1)[0][0] for name in SHARED}
    svg = TEXT.sub(lambda text: _short(text.group(), root), svg)
    return svg.replace("<svg ", f'<svg style="{_written(root)}" ', 1)


def _rounded(number: re.Match[str]) -> str:
    text = f"{float(number.group()):.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _rectangle(found: re.Match[str]) -> str:
    a, b, c, d, e, f, g, h = found.groups()
    if (a, b, c, f) != (g, d, e, h):
        return found.group()
    return f"M{a} {b}H{c}V{f}H{a}z"


def _style(text: str) -> dict[str, str]:
    """The style of a text's tag, the shared ones too where it leaves them to the viewer."""
    found = STYLE.search(text)
    said = found.group(1).split("; ") if found else []
    return {"font-family": "", "font-size": "", ANCHOR: "start"} | dict(
        one.split(": ", 1) for one in said
    )


def _short(text: str, root: dict[str, str]) -> str:
    """The tag of a text without what the root says."""
    own = _written({k: v for k, v in _style(text).items() if root.get(k) != v})
    said = f' style="{own}"' if own else ""
    return UNTURNED.sub("", STYLE.sub("", text).replace("<text", f"<text{said}", 1))


def _written(style: dict[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in style.items() if value)

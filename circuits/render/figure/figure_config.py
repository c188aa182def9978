"""How a figure is printed: its width, its style, what its boxes say."""

from collections.abc import Mapping
from dataclasses import dataclass

from circuits.render.figure.boxes import PAGES, TALLEST
from circuits.render.figure.sheet import TEXT

LABELS = ("both", "names", "ids")
LETTERS = ("text", "outlines")


@dataclass(frozen=True, kw_only=True)
class Style:
    """Where a figure is shown. Everything is laid out in a paper's inches and then enlarged."""

    pages: tuple[float, ...]
    "widths to choose from, in"
    tallest: float
    "in"
    scale: float
    "of the printed size to the one laid out"
    sites: int | None = None
    "that may be drawn between tokens and outputs"


SLIDE = 18 / TEXT
"Text of 18 points."
ON_A_SLIDE = 3
"Sites between tokens and outputs: a slide has no height for more lines of boxes."
STYLES: Mapping[str, Style] = {
    "paper": Style(pages=PAGES, tallest=TALLEST, scale=1.0),
    "slides": Style(pages=(13.33 / SLIDE,), tallest=7.5 / SLIDE, scale=SLIDE, sites=ON_A_SLIDE),
}


@dataclass(frozen=True, kw_only=True)
class FigureConfig:
    """What `circuits render` may be asked of a figure."""

    width: float | None = None
    "in, one or two columns of a paper; None for the narrower that holds it"
    style: str = "paper"
    "paper, or slides: 18 points on 13.33 x 7.5 in at most"
    labels: str = "both"
    "names of features, their ids (layer/index), or both"
    letters: str = "text"
    "in SVG: text, its font inside the file, or outlines"
    captions: bool = False
    "whether a caption in LaTeX is written beside the figure"

    def __post_init__(self) -> None:
        for field, value, known in (
            ("style", self.style, tuple(STYLES)),
            ("labels", self.labels, LABELS),
            ("letters", self.letters, LETTERS),
        ):
            if value not in known:
                raise ValueError(f"{field} is {value!r}, expected one of {', '.join(known)}")
        if self.width is not None and self.style != "paper":
            raise ValueError(f"a figure for {self.style} has its own width: leave out --width")
        if self.width not in (None, *PAGES):
            raise ValueError(
                f"the width of a figure is {' or '.join(f'{page}in' for page in PAGES)}, one or "
                f"two columns of a paper, got {self.width}in"
            )

    @property
    def pages(self) -> tuple[float, ...]:
        return STYLES[self.style].pages if self.width is None else (self.width,)


def width_in(text: str) -> float:
    """`3.3in` in inches; raises `ValueError` for what is no width."""
    try:
        return float(text.strip().removesuffix("in"))
    except ValueError:
        raise ValueError(f"{text!r} is no width: expected one such as {PAGES[0]}in") from None

"""How a figure is printed: what may be asked of it."""

import pytest

from circuits.render.figure.boxes import PAGES
from circuits.render.figure.figure_config import STYLES, FigureConfig, width_in


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"width": 5.0}, "3.3in or 6.75in, one or two columns of a paper, got 5.0in"),
        ({"style": "poster"}, "style is 'poster', expected one of paper, slides"),
        ({"labels": "none"}, "labels is 'none', expected one of both, names, ids"),
        ({"style": "slides", "width": 3.3}, "slides has its own width"),
    ],
)
def test_what_a_figure_cannot_be_is_refused(given, says):
    with pytest.raises(ValueError, match=says):
        FigureConfig(**given)


def test_a_width_is_written_in_inches():
    assert width_in("3.3in") == width_in(" 3.3 ") == 3.3
    with pytest.raises(ValueError, match="'wide' is no width: expected one such as 3.3in"):
        width_in("wide")


def test_pages_are_those_of_the_style_or_the_width_asked_for():
    assert FigureConfig().pages == PAGES
    assert FigureConfig(width=PAGES[1]).pages == (PAGES[1],)
    (slide,) = FigureConfig(style="slides").pages
    assert slide * STYLES["slides"].scale == pytest.approx(13.33)

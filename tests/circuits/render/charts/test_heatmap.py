"""A matrix of numbers as a figure."""

import re

import pytest
from matplotlib.colors import to_rgb

from circuits.render.charts.heatmap import heat_map, shaded, text_colour


@pytest.fixture
def record():
    values = [[0.9, -0.25], [None, 0.004], [0.1, 1.5]]
    return {
        "rows": ["one", "two", "random features"],
        "tasks": {"one": {}, "two": {}},
        "lost": [[{"value": value} for value in row] for row in values],
    }


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_the_heat_map_is_the_same_each_time(record, tmp_path, suffix):
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        heat_map(record, path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].stat().st_size > 1000


def test_the_heat_map_refuses_another_suffix(record, tmp_path):
    with pytest.raises(ValueError, match="a figure is written as"):
        heat_map(record, tmp_path / "matrix.gif")


def test_every_known_cell_has_its_number_and_no_minus_before_zero(record, tmp_path):
    heat_map(record, tmp_path / "a.svg")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", (tmp_path / "a.svg").read_text())
    assert {"0.90", "−0.25", "0.00", "0.10", "1.50", "circuit cut"} <= set(texts)
    assert sum(bool(re.fullmatch(r"−?\d\.\d\d", text)) for text in texts) == 5


def test_the_colour_is_as_deep_as_the_number_and_what_is_written_can_be_read():
    assert shaded(-0.004)[0] == 0.0
    assert not str(shaded(-0.004)[0]).startswith("-")
    depths = [sum(to_rgb(shaded(x)[1])) for x in (0.0, 0.3, 0.9, 1.0, 7.0)]
    assert depths[0] > depths[1] > depths[2] > depths[3] == depths[4]
    assert shaded(0.5)[1] != shaded(-0.5)[1]
    assert (text_colour("#ffffff"), text_colour("#000000")) == ("black", "white")

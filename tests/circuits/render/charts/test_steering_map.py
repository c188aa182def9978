"""The figure of a sweep: every direction and strength, the same each time."""

import re

import pytest

from circuits.render.charts.steering_map import steering_map
from tests.circuits.render.pages.steer.test_steer_page import number, sweep


@pytest.fixture
def record():
    return sweep()


@pytest.mark.parametrize("suffix", ["svg", "pdf", "png"])
def test_the_figure_is_the_same_each_time(record, tmp_path, suffix):
    found = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.{suffix}"
        steering_map(record, path)
        found.append(path.read_bytes())
    assert found[0] == found[1]


def test_the_figure_is_as_wide_as_a_paper_and_leaves_no_strength_blank(record, tmp_path):
    path = tmp_path / "map.svg"
    steering_map(record, path)
    text = path.read_text()
    assert 'width="486pt"' in text  # 6.75 in
    arms = [arm for arm in record["arms"] if arm["strength"] > 0]
    steering_map({**record, "arms": arms}, path)
    assert "−" not in "".join(re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text()))


def test_columns_of_a_strength_stand_under_each_other(record, tmp_path, drawn):
    record["arms"][0]["kl"] = number(2.71)
    record["arms"][2]["kl"] = number(3.14)
    record["arms"][0]["label"] = "a label of more than one line " * 2
    steering_map(record, tmp_path / "map.svg")
    (axes,) = drawn[0].axes
    places = {text.get_text(): text.get_position() for text in axes.texts}
    assert places["2.7"][0] == places["3.1"][0]
    heads = [text.get_position()[0] for text in axes.texts if text.get_text() == "1"]
    assert places["2.7"][0] in heads
    assert "resid_post.3/86 a label of more" in places
    assert any(text.startswith("than one line") for text in places)


def test_a_figure_has_every_direction_and_refuses_another_suffix(record, tmp_path):
    path = tmp_path / "map.svg"
    steering_map(record, path)
    text = path.read_text()
    for said in ("no steering", "instruction in the prompt", "resid_post.3/86", "−1", "fluency"):
        assert said in text
    for said in ("strength", "none", "KL", "feature", "blank: not tried"):
        assert said in text
    with pytest.raises(ValueError, match="a figure is written as"):
        steering_map(record, tmp_path / "map.gif")

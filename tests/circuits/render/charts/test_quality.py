"""The quality table fits the terminal, and the figure is the same on every run."""

from xml.etree import ElementTree

import numpy as np
import pytest

from circuits.render.charts.quality import LIMITS, quality_figure

KINDS = ("resid_post.{}", "attn_out.{}", "mlp_in.{}-mlp_out.{}")


def figures(fvu, l0=32.0, *, interval=True):
    return {
        "l0": l0,
        "fvu": fvu,
        "fvu_all": 1.1 * fvu,
        "cosine": 0.9,
        "dead": 0.25,
        "dense": 12,
        "loss_recovered": 1 - fvu if interval else None,
        "kl": fvu / 3,
        "intervals": {
            name: [0.9 * fvu, 1.2 * fvu] if interval else None for name in ("fvu", "loss_recovered")
        },
    }


def record(layers=3, l0=32.0):
    found = {}
    for kind in KINDS:
        for layer in range(layers):
            name = kind.format(layer, layer)
            linear = "linear" if "-" in name else "PCA"
            controls = {"untrained": figures(3.0, l0), linear: figures(0.5, l0 - 0.2)}
            found[name] = figures(0.01 * (layer + 1), l0) | {"controls": controls}
    return found


@pytest.mark.parametrize("name", ["quality.svg", "quality.pdf"])
def test_two_runs_give_the_same_bytes(tmp_path, name):
    for folder in ("a", "b"):
        quality_figure(record(), tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.fixture
def axes_of(drawn, tmp_path):
    """The axes of a record's figure."""

    def draw(found):
        quality_figure(found, tmp_path / "q.svg")
        return drawn[-1].axes[0]

    return draw


def test_every_dictionary_is_marked_at_its_fvu_and_near_its_l0(axes_of):
    found = record(2, l0=8.0)
    for name, quality in found.items():
        if name.endswith("1"):
            quality["l0"] = 32.0
    axes = axes_of(found)
    assert len(axes.texts) == len(found)
    for text in axes.texts:
        x, y = text.xy
        l0, fvu = (8, 0.01) if text.get_text() == "0" else (32, 0.02)
        assert abs(np.log(x / l0)) < np.log(32 / 8) / 2
        assert y == fvu
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    drawn_at = [line.get_data() for line in axes.lines[1:]]
    assert all(left < value < right for x, _ in drawn_at for value in x)
    assert all(bottom < value <= top for _, y in drawn_at for value in y)


def test_columns_of_one_l0_stay_nearer_to_it_than_to_the_next(axes_of):
    """By layer from left to right, each at a distance of its own."""
    l0 = [8.0] * 5 + [11.0] * 5 + [64.0] * 5
    found = {f"mlp_out.{layer}": figures(0.1, value) for layer, value in enumerate(l0)}
    axes = axes_of(found)
    assert [text.get_text() for text in axes.texts] == [str(layer) for layer in range(15)]
    shifts = np.log10([text.xy[0] for text in axes.texts]) - np.log10(l0)
    assert np.abs(shifts).max() < np.log10(11 / 8) / 2
    assert (np.diff(shifts) > 0).all()


def test_what_is_off_the_scale_is_drawn_at_its_edge(axes_of):
    found = {"mlp_out.0": figures(0.0), "mlp_out.1": figures(50.0, interval=False)}
    axes = axes_of(found)
    assert [text.xy[1] for text in axes.texts] == list(LIMITS)


def test_the_figure_names_kinds_and_controls(axes_of):
    axes = axes_of(record(1))
    (legend,) = axes.figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "attn_out",
        "mlp_in-mlp_out",
        "resid_post",
        "untrained",
        "PCA, linear: of rank L0",
    ]
    axes = axes_of({"mlp_out.0": figures(0.1)})
    assert len(axes.figure.legends[0].get_texts()) == 1


def test_svg_is_xml(tmp_path):
    quality_figure(record(24), tmp_path / "quality.svg")
    assert ElementTree.parse(tmp_path / "quality.svg").getroot().tag.endswith("svg")


def test_a_figure_of_nothing_and_of_another_type(tmp_path):
    with pytest.raises(ValueError, match="no dictionaries: run `circuits evaluate` first"):
        quality_figure({}, tmp_path / "quality.svg")
    with pytest.raises(ValueError, match=r".svg, .pdf, .png, got 'quality.gif'"):
        quality_figure(record(), tmp_path / "quality.gif")
    assert not list(tmp_path.iterdir())

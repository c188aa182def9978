"""The check of a circuit as a figure: what is drawn is what the record holds."""

import re
from itertools import combinations, pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from circuits.render.charts.curves import GROUPS, LEAST, OUTSIDE, STROKES, curves_figure
from circuits.render.words import row_name
from tests.circuits import synthetic


@pytest.fixture
def record():
    return synthetic.verification(synthetic.circuit(40))


@pytest.mark.parametrize("name", ["curves.svg", "curves.pdf"])
def test_the_curves_are_the_same_bytes_too(tmp_path, name):
    record = synthetic.verification(synthetic.circuit(40))
    for folder in ("a", "b"):
        curves_figure(record, tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_held_out_prompts_have_a_panel_and_rows_keep_their_colour(tmp_path):
    record = synthetic.verification(synthetic.circuit(40))
    curves_figure(record | {"held_out": None}, tmp_path / "without.svg")
    rows = record["held_out"]["rows"]
    del rows[list(rows)[1]]
    curves_figure(record, tmp_path / "with.svg")
    panels = {name: _axes(tmp_path / f"{name}.svg") for name in ("with", "without")}
    assert len(panels["with"]) == len(panels["without"]) + 1
    own, held_out = (_colours(panel) for panel in panels["with"][:2])
    assert len(held_out) == len(rows) == len(own) - 1
    assert [stroke for stroke in own if stroke in held_out] == held_out


def test_all_rows_that_verify_writes_are_told_apart_and_named(tmp_path, drawn):
    record = synthetic.verification(synthetic.circuit(40))
    row = next(iter(record["curves"]["rows"].values()))
    names = ["circuit", "circuit, no attn or mlp errors", "circuit without errors"]
    names += ["random nodes, same sites", "random nodes", "random features", "neurons"]
    names += ["neurons, inside the MLPs", "features, neurons inside the MLPs"]
    names += ["features, neurons inside the MLPs, no errors", "untrained dictionaries"]
    names += ["untrained dictionaries, no errors"]
    record["curves"]["rows"] = dict.fromkeys(names, row)
    record["held_out"]["rows"] = {"circuit": row}
    curves_figure(record, tmp_path / "curves.svg")
    (figure,) = drawn
    rows = [line for line in figure.axes[0].lines if len(line.get_xdata()) > 2]
    strokes = {(r.get_color(), str(r.get_linestyle()), r.get_marker()) for r in rows}
    assert len(strokes) == len(rows) == 12
    legend, page = figure.legends[0].get_window_extent(), figure.bbox
    assert legend.x1 <= page.x1
    assert legend.y0 >= figure.axes[0].get_window_extent().y1


def test_the_first_row_of_every_panel_has_its_interval(tmp_path):
    record = synthetic.verification(synthetic.circuit(40))
    curves_figure(record, tmp_path / "with.svg")
    for row in record["curves"]["rows"].values():
        del row["completeness_low"]
    curves_figure(record, tmp_path / "without.svg")
    texts = [(tmp_path / f"{name}.svg").read_text() for name in ("with", "without")]
    assert [text.count('id="FillBetweenPolyCollection_') for text in texts] == [3, 2]


def _colours(panel):
    """Of the curves of a panel, in the order in which they were drawn."""
    styles = [path.get("style") or "" for path in panel]
    of_rows = [s for s in styles if re.search(r"stroke-width: (1\.5|0\.8)", s)]
    return [
        (re.findall(r"stroke: (#[0-9a-f]{6})", s), re.findall(r"stroke-dasharray: ([^;]+)", s))
        for s in of_rows
    ]


def _axes(path):
    """For each panel its curves: what is clipped to it."""
    name = "{http://www.w3.org/2000/svg}"
    groups = ElementTree.parse(path).getroot().iter(f"{name}g")
    panels = [g for g in groups if (g.get("id") or "").startswith("axes_")]
    return [[p for p in g.iter(f"{name}path") if p.get("clip-path")] for g in panels]


def test_a_verification_without_content_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no curves and no points"):
        curves_figure({"schema": "verification/1"}, tmp_path / "curves.svg")


def test_curves_alone_and_points_alone_are_drawn(tmp_path):
    record = synthetic.verification(synthetic.circuit(20))
    curves_figure({"curves": record["curves"]}, tmp_path / "curves.svg")
    curves_figure({"nodes": record["nodes"]}, tmp_path / "points.svg")
    panels = {path.stem: _axes(path) for path in tmp_path.iterdir()}
    assert {name: len(found) for name, found in panels.items()} == {"curves": 2, "points": 1}


@pytest.fixture
def panels(tmp_path, drawn):
    """Draw a record; its panels as they were when it was saved."""

    def draw(record):
        curves_figure(record, tmp_path / "curves.svg")
        return drawn[-1].axes

    return draw


def curves_of(panel):
    """The lines of a panel that are rows, by what the legend calls them."""
    return {line.get_label(): line for line in panel.lines if not line.get_label().startswith("_")}


def test_every_curve_has_the_values_of_its_row(record, panels):
    faithful, held_out, complete, _ = panels(record)
    for panel, curves, field in (
        (faithful, record["curves"], "faithfulness"),
        (held_out, record["held_out"], "faithfulness"),
        (complete, record["curves"], "completeness"),
    ):
        drawn = curves_of(panel)
        rows = {n: r[field] for n, r in curves["rows"].items() if r[field][0] is not None}
        assert list(drawn) == [row_name(name) for name in rows]
        for name, values in rows.items():
            line = drawn[row_name(name)]
            assert line.get_xdata().tolist() == curves["sizes"]
            assert line.get_ydata().tolist() == values


def test_a_row_without_completeness_has_no_curve_of_it(record, panels):
    name = "circuit without errors"
    assert set(record["curves"]["rows"][name]["completeness"]) == {None}
    faithful, *_, complete, _ = panels(record)
    assert row_name(name) in curves_of(faithful)
    assert row_name(name) not in curves_of(complete)


def test_what_is_not_known_is_a_gap(record, panels):
    record["curves"]["rows"]["random features"]["faithfulness"][3] = None
    values = curves_of(panels(record)[0])[row_name("random features")].get_ydata()
    assert np.isnan(values).tolist() == [i == 3 for i in range(len(values))]


def test_none_kept_has_a_place_on_an_axis_of_powers(record, panels):
    record["curves"]["sizes"][0] = 0
    (line, *_) = curves_of(panels(record)[0]).values()
    assert line.get_xdata()[0] == 0.5


@pytest.mark.parametrize("metric", ["logit-difference", "kl"])
def test_points_stand_at_what_supports_the_answer(record, panels, metric):
    """A node supports it by what patching it takes away; from a divergence, by what it adds."""
    record["metric"] = metric
    axes = panels(record)[-1]
    flip = 1 if metric == "kl" else -1
    expected = [(flip * p["estimate"], flip * p["exact"]) for p in record["nodes"]["points"]]
    parts = [line for line in axes.lines if line.get_marker() in ("o", "s")]
    found = [tuple(pair) for line in parts for pair in zip(*line.get_data(), strict=True)]
    assert sorted(found) == sorted(expected)
    for line in parts:
        exact = np.asarray(line.get_ydata())
        assert (exact >= 0).all() if line.get_marker() == "o" else (exact < 0).all()
    left, right = axes.get_xlim()
    assert axes.get_ylim() == (left, right)
    assert all(left < value < right for pair in expected for value in pair)


def test_the_figures_of_agreement_are_written_as_they_are(record, panels):
    (text,) = panels(record)[-1].texts
    assert text.get_text() == "ρ = 0.94\nslope = 1.04"
    record["nodes"]["spearman"] = None
    (text,) = panels(record)[-1].texts
    assert text.get_text() == "slope = 1.04"


def test_a_control_far_off_does_not_flatten_the_rest(record, panels):
    values = record["curves"]["rows"]["random features"]["faithfulness"]
    values[:] = [-40.0, 70.0, *values[2:]]
    low, high = panels(record)[0].get_ylim()
    assert (low, high) == OUTSIDE


def test_noise_about_zero_does_not_look_like_a_curve(record, panels):
    for row in record["curves"]["rows"].values():
        row["faithfulness"] = [1e-3 * (-1) ** i for i in range(len(row["faithfulness"]))]
    low, high = panels(record)[0].get_ylim()
    assert low <= LEAST[0] < LEAST[1] <= high


def test_no_two_groups_have_colours_that_are_nearly_alike():
    colours = [to_rgb(group.colour) for group in GROUPS]
    for one, other in combinations(colours, 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 0.15


def test_the_circuit_stands_out_from_muted_controls(record, panels):
    record["curves"]["rows"]["neurons"] = record["curves"]["rows"]["random features"]
    drawn = curves_of(panels(record)[0])
    for name, line in drawn.items():
        red, green, blue = to_rgb(line.get_color())
        of_circuit = name.startswith("strongest")
        assert (max(red, green, blue) - min(red, green, blue) > 0.3) is of_circuit
        assert (line.get_linewidth() > 1) is of_circuit


def test_groups_are_labelled_beside_their_curves(record, panels):
    record["curves"]["rows"]["neurons"] = record["curves"]["rows"]["random features"]
    axes = panels(record)[0]
    labels = {text.get_text(): text for text in axes.texts}
    assert set(labels) == {"strongest", "random", "neurons"}
    heights = sorted(text.xy[1] for text in labels.values())
    low, high = axes.get_ylim()
    assert all((b - a) / (high - low) > 0.05 for a, b in pairwise(heights))
    assert labels["strongest"].xy[1] == max(heights)


def test_no_two_strokes_are_alike():
    assert len({colour for colour, _, _ in STROKES}) == len(STROKES)
    assert len({(str(dashes), marker) for _, dashes, marker in STROKES}) == len(STROKES)


def test_numbers_of_nodes_do_not_run_into_each_other(record, panels):
    """Of four panels side by side, with as many nodes as a real model has."""
    sizes = record["curves"]["sizes"]
    scale = 12787 / max(sizes)
    for part in (record["curves"], record["held_out"]):
        part["sizes"] = [max(1, size * scale) if size > 1 else 1 for size in part["sizes"]]
    for axes in panels(record):
        axes.figure.canvas.draw()
        boxes = [t.get_window_extent() for t in axes.get_xticklabels() if t.get_text()]
        assert all(a.x1 < b.x0 for a, b in pairwise(sorted(boxes, key=lambda b: b.x0)))

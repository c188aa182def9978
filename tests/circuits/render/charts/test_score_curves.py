"""A task's score by the number of features that are kept, as a figure."""

from itertools import pairwise

import pytest

from circuits.render.charts.score_curves import LINES, score_figure


def test_scores_have_lines_at_their_ends_and_fit_their_axis(tmp_path, drawn):
    """Of a metric in any units: probabilities of a few percent, logits of any sign."""
    for scale in (0.01, 3.0):
        row = {"nodes": 9, **{end: [-scale, scale, 2 * scale] for end in ("score", "low", "high")}}
        names = ("strongest features", "strongest features, by the replacement graph")
        names += ("random features", "neurons, inside the MLPs", "untrained dictionaries")
        ends = {"model": 2.5 * scale, "replaced": 2 * scale, "nothing": -1.5 * scale}
        record = {
            "metric": "probability-difference",
            "sizes": [1, 3, 9],
            "rows": dict.fromkeys(names, row),
            **{name: {"score": value, "interval": None} for name, value in ends.items()},
        }
        score_figure(record, tmp_path / "scores.svg")
        (axes,) = drawn[-1].axes
        low, high = axes.get_ylim()
        assert low < -1.5 * scale < 2.5 * scale < high < 3 * scale
        lines = [line.get_ydata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
        assert lines == [2.5 * scale, 2 * scale, -1.5 * scale]
        names = [text for text in axes.texts if text.get_text() in LINES.values()]
        heights = sorted(text.xy[1] for text in names)
        assert len(heights) == 3
        assert min(b - a for a, b in pairwise(heights)) > 0.05
    with pytest.raises(ValueError, match="a figure is written as"):
        score_figure(record, tmp_path / "scores.txt")

"""The figure of what training did."""

from pathlib import Path

import pytest

from circuits.render.charts.tune_figure import tune_figure
from tests.circuits.render.charts.test_scope_figures import record_of, texts_of

EXPERIMENTS = Path(__file__).parents[4] / "experiments"


def test_what_training_did_says_what_bars_and_colours_are(tmp_path):
    said = " ".join(texts_of(tune_figure, record_of("sasft/results/tuned.json"), tmp_path))
    for part in ("bars: 95% intervals", "grey line: before training", "blue: the model"):
        assert part in said
    for part in ("lambda 0.645", "60 steps", "● chosen, ○ random", "english", "chinese"):
        assert part in said
    assert ".jsonl" not in said


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_share_that_is_the_same_everywhere_stays_on_its_axis(drawn, tmp_path, share):
    record = record_of("sasft/results/tuned.json")
    for arm in record["arms"].values():
        arm["behaviour"] = {"mean": share, "interval": [share, share]}
    tune_figure(record, tmp_path / "a.svg")
    behaviour, *_, on = drawn[0].axes
    low, high = behaviour.get_xlim()
    assert 0 <= low <= share <= high <= 1
    assert high - low >= 0.01
    points = {round(float(line.get_xdata()[0]), 6) for line in on.lines}
    for arm in record["arms"].values():
        for features in arm["activation"].values():
            assert round(features["prompts"]["pre_activation"], 6) in points


def test_titles_of_all_measures_begin_at_one_height(drawn, tmp_path):
    tune_figure(record_of("sasft/results/tuned.json"), tmp_path / "a.svg")
    titles = [text for text in drawn[0].texts if text.get_text().startswith(("share", "cross"))]
    assert len(titles) == 3
    assert len({text.get_position()[1] for text in titles}) == 1

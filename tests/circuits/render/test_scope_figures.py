"""Figures of the verbs about uses of features say what is drawn in them."""

import json
import re
from pathlib import Path

import pytest

from circuits.render.methods_figure import DASHES_OF, methods_figure
from circuits.render.synthesis import synthesis_figure
from circuits.render.tune_figure import tune_figure

EXPERIMENTS = Path(__file__).parents[3] / "experiments"


def record_of(name):
    return json.loads((EXPERIMENTS / name).read_text(encoding="utf-8"))


def texts_of(draw, record, tmp_path):
    """What a figure writes; drawn twice, it is the same."""
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    draw(record, first)
    draw(record, second)
    assert first.read_bytes() == second.read_bytes()
    return re.findall(r"<text[^>]*>([^<]*)</text>", first.read_text(encoding="utf-8"))


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


@pytest.mark.parametrize("accuracy", [None, 1.0])
def test_no_share_is_more_than_all(tmp_path, accuracy):
    record = record_of("synthesis/results/instruction.json")
    for row in record["rows"].values() if accuracy else ():
        for score in row["scores"].values():
            score |= {"accuracy": 1.0, "interval": [1.0, 1.0], "by_seed": [1.0]}
    texts = texts_of(synthesis_figure, record, tmp_path)
    numbers = [float(text) for text in texts if re.fullmatch(r"[\d.]+", text)]
    assert max(numbers) <= 100
    assert accuracy is None or 80 in numbers
    assert "dashed: training alone" in " ".join(texts)


def test_shares_of_texts_have_their_sign_and_the_probe_hides_nothing(tmp_path):
    texts = texts_of(methods_figure, record_of("classify/results/data_en.json"), tmp_path)
    assert {"50%", "all"} <= set(texts)
    (probe_at, probe), (means_at, means) = (
        DASHES_OF[n] for n in ("linear probe", "difference of means")
    )
    assert (probe, probe_at + probe[0]) == (means, means_at)


def judged(**ends):
    """A record of one method, of which 1 and 5 % are the same number of texts."""
    one = {"name": "features", "f1": 0.5, "auroc": 0.7, "tpr": 0.2, **ends}
    return {
        "methods": [one],
        "by_features": {"1": [one], "50": [one]},
        "by_texts": {n: [one] for n in ("1", "2", "3", "5", "10", "14", "20")},
        "by_share": {"1": 1, "5": 1, "10": 3, "50": 14, "100": 28},
        "splits": 5,
    }


def test_how_well_each_method_tells_texts_apart_says_what_its_bands_are(tmp_path):
    path = tmp_path / "figure.svg"
    measures = ("f1", "auroc", "tpr")
    for kind, said in (("interval", "bands: 95% intervals"),
                       ("range", "bands: least to most of 5 splits")):  # fmt: skip
        ends = {f"{name}_{kind}": [0.1, 0.9] for name in measures}
        texts = texts_of(methods_figure, judged(**ends), tmp_path)
        assert said in texts
        assert {"F1", "AUROC", "TPR at 1% FPR"} <= set(texts)
        assert {"1, 5%", "10%", "50%", "all"} <= set(texts)
    bands = {}
    # Older records have no interval of the TPR, or of nothing.
    for left_out in ((), ("tpr",), measures):
        ends = {f"{name}_interval": [0.1, 0.9] for name in measures if name not in left_out}
        methods_figure(judged(**ends), path)
        bands[len(left_out)] = len(re.findall(r'id="FillBetween', path.read_text("utf-8")))
    assert bands[0] - bands[1] == 2
    assert bands[3] == 0
    assert "bands" not in path.read_text("utf-8")


def test_shares_of_many_texts_that_have_no_room_leave_the_ends_and_a_tenth(tmp_path):
    record = judged()
    record["by_share"] = {"1": 10, "5": 50, "10": 100, "50": 500, "100": 1000}
    record["by_texts"] = dict.fromkeys(("1", "2", "5", "10", "50", "100", "500"), record["methods"])
    texts = texts_of(methods_figure, record, tmp_path)
    assert {"1%", "10%", "all"} <= set(texts)

"""The figure of methods that tell texts apart."""

import re
from pathlib import Path

from circuits.render.charts.methods_figure import DASHES_OF, methods_figure
from tests.circuits.render.charts.test_scope_figures import record_of, texts_of

EXPERIMENTS = Path(__file__).parents[4] / "experiments"


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

"""Figures of the verbs about uses of features say what is drawn in them."""

import json
import re
from pathlib import Path

import pytest

from circuits.render.charts.synthesis import synthesis_figure

EXPERIMENTS = Path(__file__).parents[4] / "experiments"


def record_of(name):
    return json.loads((EXPERIMENTS / name).read_text(encoding="utf-8"))


def texts_of(draw, record, tmp_path):
    """What a figure writes; drawn twice, it is the same."""
    first, second = tmp_path / "a.svg", tmp_path / "b.svg"
    draw(record, first)
    draw(record, second)
    assert first.read_bytes() == second.read_bytes()
    return re.findall(r"<text[^>]*>([^<]*)</text>", first.read_text(encoding="utf-8"))


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

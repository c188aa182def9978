"""Committed figures are what the renderers draw from the records beside them."""

import json
import re
from pathlib import Path

import pytest

from experiments.redraw import FIGURES, figures_of, main

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
RECORDS = (
    "coverage/results/qwen.json",
    "sasft/results/tuned.json",
    "steered_grpo/results/seed-0.json",
    "steering/results/chat/topic.json",
    "synthesis/results/instruction.json",
)
"One of each renderer; those without characters that a machine may lack a font for."


def drawn_in(path):
    """Texts and marks of a figure, which do not depend on how its font was cut."""
    svg = path.read_text(encoding="utf-8")
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg), len(re.findall(r"<(?:path|use)\b", svg))


@pytest.mark.parametrize("name", RECORDS)
def test_a_committed_figure_is_what_is_drawn_from_its_record(name, tmp_path):
    path = EXPERIMENTS / name
    record = json.loads(path.read_text(encoding="utf-8"))
    found = list(figures_of(path, record))
    assert len(found) == len(FIGURES[record["schema"]])
    for figure, draw in found:
        draw(record, tmp_path / figure.name)
        assert drawn_in(tmp_path / figure.name) == drawn_in(figure)


def test_only_figures_that_stand_are_drawn_again(tmp_path, monkeypatch, capsys):
    record = (EXPERIMENTS / RECORDS[0]).read_text(encoding="utf-8")
    (tmp_path / "tasks.json").write_text(record, encoding="utf-8")
    (tmp_path / "tasks-overlap.svg").write_text("", encoding="utf-8")
    (tmp_path / "other.json").write_text("[1]", encoding="utf-8")
    asked = [str(tmp_path / name) for name in ("tasks.json", "other.json")]
    monkeypatch.setattr("sys.argv", ["redraw", *asked])
    main()
    assert capsys.readouterr().out.split() == [str(tmp_path / "tasks-overlap.svg")]
    assert "<svg" in (tmp_path / "tasks-overlap.svg").read_text(encoding="utf-8")
    assert not (tmp_path / "tasks-growth.svg").exists()

"""Experiments find what they import: a name that moved breaks them, and nothing else would tell."""

from importlib import import_module
from pathlib import Path

import pytest

from experiments.classify.pairs import aligned

ROOT = Path(__file__).parents[1]
RUNS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for name in ("run", "real")
    for path in ROOT.glob(f"experiments/*/{name}.py")
)


@pytest.mark.parametrize("name", RUNS)
def test_an_experiment_finds_what_it_imports(name):
    assert callable(import_module(name).main)


def test_paragraphs_of_two_languages_are_paired_in_their_order():
    english = ["Run apt-get update first.", "Nothing here.", "Read ssh_config and use scp now."]
    chinese = ["先运行 apt-get update。", "用 scp，读 ssh_config。", "再运行 apt-get update。"]
    assert aligned(english, chinese) == [(0, 0), (2, 1)]

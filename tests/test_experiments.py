"""Experiments find what they import: a name that moved breaks them, and nothing else would tell."""

from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNS = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in ROOT.glob("experiments/*/run.py")
)


@pytest.mark.parametrize("name", RUNS)
def test_an_experiment_finds_what_it_imports(name):
    assert callable(import_module(name).main)

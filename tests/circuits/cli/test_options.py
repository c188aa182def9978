"""Options that several verbs share: their limits, their choices, where to compute."""

import sys

import pytest

from circuits.attribution.estimators import ESTIMATORS
from circuits.cli.options import Dtype, Estimator, Mlp, at_least, command_line, placed, say_found
from hooked_qwen.placement import Placement
from tests.circuits.printed import printed


def test_an_option_below_its_least_is_named_as_it_is_written():
    at_least(1, nodes=1, top=None, edge_steps=3)
    with pytest.raises(ValueError, match="--edge-steps is 0: expected 1 or more"):
        at_least(1, nodes=5, edge_steps=0)


def test_the_choices_of_estimators_are_the_rows_of_the_table():
    assert [one.value for one in Estimator] == list(ESTIMATORS)


def test_where_to_compute_is_checked_before_anything_is_read():
    assert placed(None, Dtype.bfloat16, 2.0) == Placement(dtype="bfloat16", memory=2.0)
    assert placed("cpu") == Placement(device="cpu")
    with pytest.raises(ValueError, match="no device 'cuda:77' here"):
        placed("cuda:77")


def test_the_command_is_kept_as_it_was_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/circuits", "verify", "run"])
    assert command_line() == ["circuits", "verify", "run"]


def test_what_was_found_is_one_line_by_layout_and_layers():
    said = printed(say_found, "bundled", Mlp.sae)
    assert "15 dictionaries" in " ".join(said.split())

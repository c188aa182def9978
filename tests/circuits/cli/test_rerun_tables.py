"""What `circuits edit apply` prints."""

from circuits.cli.rerun_tables import SHOWN, rerun_tables, with_interval
from circuits.runs.rerun import graph_record
from tests.circuits import synthetic
from tests.circuits.printed import printed
from tests.circuits.render.pages.rerun.test_rerun_page import ALL, effects, prompts, record, written


def test_a_number_has_its_ends_where_they_are_known():
    assert with_interval({"value": 0.5, "interval": [0.25, 0.75]}) == "0.500 [0.250, 0.750]"
    assert with_interval({"value": 0.5, "interval": None}, "{:.1f}".format) == "0.5"
    assert with_interval({"value": None, "interval": None}) == "–"
    assert with_interval({"value": -0.0, "interval": None}, "{:+.1f}".format) == "+0.0"


def test_what_was_run_is_printed_and_nothing_else():
    assert "cross-entropy" not in printed(rerun_tables, record(prompts=prompts()))
    graph = graph_record(synthetic.circuit(20, seed=1), synthetic.circuit(20, seed=2))
    said = printed(rerun_tables, record(**ALL, graph=graph), width=200)
    for words in ("right answer preferred", "text of 2,032 tokens", "side effects", "graph: 20"):
        assert words in said


def test_prompts_that_are_not_shown_are_counted():
    said = printed(rerun_tables, record(prompts=prompts(30)), width=200)
    assert f"and {30 - SHOWN} more prompts in result.json" in said
    assert "more prompt" not in printed(rerun_tables, record(prompts=prompts(3)), width=200)


def test_a_token_whose_odds_moved_tells_both_probabilities():
    said = printed(rerun_tables, record(generate=written()), width=400)
    assert " sing[↓0.04→0.00]" in said
    assert " prays[↑0.00→0.05]" in said
    assert " in[" not in said


def test_every_control_has_a_letter_and_what_was_left_out_its_reason():
    said = printed(rerun_tables, record(side_effects=effects()), width=300)
    kinds = list(effects()["text"]["controls"])
    assert (
        "; ".join(f"{letter}: {kind}" for letter, kind in zip("abcd", kinds, strict=True)) in said
    )
    assert "left out ioi: knows no" in said

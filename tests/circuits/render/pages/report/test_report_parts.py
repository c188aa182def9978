"""What a report says of how well a circuit stands, as tables."""

import pytest

from circuits.render.pages.report.report_parts import (
    SIZES,
    cuts_part,
    number,
    spanned,
    stability_part,
    verification_part,
)
from tests.circuits import synthetic

RERUN = {"edit": ["set to 0"], "prompts": {"before": {"value": 2.0, "interval": [1.5, 2.5]}}}


@pytest.fixture
def record():
    return synthetic.verification(synthetic.circuit(40))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "–"),
        (0.9, "0.90"),
        (0.0123, "0.012"),
        (-0.5, "−0.50"),
        (-0.001, "0.00"),
    ],
)
def test_a_number_has_two_decimals_or_three_and_no_minus_before_zero(value, said):
    assert number(value) == said


def test_an_interval_stands_where_there_is_one():
    assert spanned(0.5, (0.4, 0.6)) == "0.50 (0.40 to 0.60)"
    assert spanned(0.5, None) == spanned(0.5, (0.5, 0.5)) == spanned(0.5, (None, None)) == "0.50"
    assert spanned(None, (0.4, 0.6)) == "–"


def test_of_a_run_that_was_not_verified_it_is_said():
    assert "Not verified" in verification_part(None, []).lines[0]
    assert stability_part(None) is None
    assert cuts_part({}, {}, {}) is None


def test_a_verification_has_estimates_and_faithfulness_at_some_sizes_the_largest_too(record):
    part = verification_part(record, ["data:a", "data:b"])
    agreement, curves, held_out = part.tables
    assert [row[0] for row in agreement.rows] == [
        "nodes of the graph",
        "strongest edges",
        "random edges",
        "nodes that the estimator did not choose",
    ]
    assert len(curves.columns) - 1 <= SIZES
    assert curves.columns[-1] == f"{record['curves']['sizes'][-1]:,}"
    assert curves.title.count("the run's prompts") == held_out.title.count("held-out prompts") == 1
    assert all(len(row) == len(curves.columns) for row in curves.rows)
    assert part.lines[0] == "The graph as it stands has a faithfulness of 0.90 (0.86 to 0.95)."
    assert [bool(figure.caption) for figure in part.figures] == [True, False]


def test_a_row_without_faithfulness_is_dashes(record):
    record["curves"]["rows"]["circuit"]["faithfulness"] = None
    _, curves, _ = verification_part(record, []).tables
    assert set(curves.rows[0][1:]) == {"–"}


def test_ablations_edited_circuits_and_reruns_stand_with_their_controls():
    edited = {"mine": {"rows": {"circuit": {"faithfulness": 0.5, "interval": [0.4, 0.6]}}}}
    ablated, by_hand, rerun = cuts_part(synthetic.ablations(), edited, {"half": RERUN}).tables
    assert ablated.rows[0][1] == "nothing"
    assert by_hand.rows == [["mine", "strongest nodes", "0.50 (0.40 to 0.60)"]]
    assert rerun.rows == [["half", "set to 0", "2.00 (1.50 to 2.50)", "–", "–"]]


def test_how_much_is_found_again_is_two_lines():
    nodes = {n: {"value": 0.7, "interval": [0.6, 0.8]} for n in ("jaccard", "between_draws")}
    lines = stability_part({"nodes": nodes}).lines
    assert [line.endswith("0.70 (0.60 to 0.80).") for line in lines] == [True, True]

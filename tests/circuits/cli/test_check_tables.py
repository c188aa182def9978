"""What `specificity`, `stability` and `sufficiency` print."""

import pytest

from circuits.cli.check_tables import specificity_table, stability_table, sufficiency_table
from tests.circuits.printed import printed


def figure(value, *interval):
    return {"value": value, "interval": interval or None}


def test_a_matrix_has_every_circuit_and_names_of_folders_are_no_markup():
    own = {"own": figure(0.9, 0.8, 1.0), "others": figure(0.1), "worst": figure(0.2) | {
        "circuit": "two"}, "own_beyond_others": figure(0.8)}  # fmt: skip
    record = {
        "size": 5, "rows": ["run[a]", "two"], "tasks": {"run[a]": own, "[/b]": own},
        "lost": [[figure(0.9), figure(None)], [figure(-0.001), figure(0.25)]],
        "overlap": [{"shared": 1, "jaccard": 0.25, "circuits": ["run[a]", "two"]}],
    }  # fmt: skip
    lines = printed(specificity_table, record).splitlines()
    first = next(line for line in lines if line.startswith("run[a]"))
    assert first.split() == ["run[a]", "0.90", "–"]
    assert next(line for line in lines if line.startswith("two")).split() == ["two", "0.00", "0.25"]
    assert any(line.startswith("[/b]") and "0.90 [0.80, 1.00]" in line for line in lines)
    assert "circuits share at most 1 feature of 5 (run[a] and two, Jaccard 0.25)" in lines[-1]


@pytest.mark.parametrize("n", [0, 2])
def test_what_is_stable_is_said_by_the_threshold(n):
    record = {
        "size": 10, "resamples": 4, "n_prompts": 2, "threshold": 0.7,
        "nodes": {"jaccard": figure(0.7), "between_draws": figure(0.6, 0.5, 0.65),
                  "rank_correlation": figure(None)},
        "reruns": {"n": n, "nodes": figure(0.9), "edges": figure(0.1)},
        "estimators": {"pairs": [{"estimators": ["ig", "relp"], "jaccard": 0.5}],
                       "skipped": {"exact": "too long"}},
        "found": [{"id": "mlp_out.0/1", "share": 0.25}, {"id": "mlp_out.0/2", "share": 0.75}],
    }  # fmt: skip
    said = printed(stability_table, record)
    verdicts = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in said.splitlines()}
    assert verdicts["nodes, Jaccard with the run's"] == "stable"
    assert verdicts["nodes, Jaccard between two draws"] == "not stable"
    assert verdicts["nodes by ig and relp, Jaccard"] == "not stable"
    assert ("2 graphs found anew" in said) == (n == 2)
    assert "left out exact: too long" in said
    assert "on fewer than half of the draws: 1 (mlp_out.0/1 25%)" in said


def test_a_size_beyond_all_that_a_row_has_is_left_blank():
    row = {"nodes": 3, "score": [0.1, 0.2, 0.2]}
    record = {
        "metric": "probability-difference", "n_prompts": 1, "layers": [3, 4], "errors": "out",
        "to": "zero", "sizes": [1, 3, 9], "rows": {"strongest": row, "all": row | {"nodes": 99}},
        **{name: {"score": score} for name, score in
           (("model", 0.5), ("replaced", 0.25), ("nothing", 0.0))},
    }  # fmt: skip
    said = printed(sufficiency_table, record)
    assert "MLPs of 2 layers by transcoders, errors left out: 0.250" in " ".join(said.split())
    rows = [line.split() for line in said.splitlines() if line[:2] in ("1 ", "3 ", "9 ")]
    assert rows == [["1", "0.100", "0.100"], ["3", "0.200", "0.200"], ["9", "0.200"]]

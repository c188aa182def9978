"""What compared runs are called."""

from circuits.runs.compare_runs import names_of


def test_runs_are_called_by_what_tells_them_apart(tmp_path):
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    assert names_of(one, tmp_path / "one" / "other") == ("run", "other")
    assert names_of(one, two) == ("one/run", "two/run")
    assert names_of(one / "ablations" / "x", two / "ablations" / "x") == (
        "one/run/ablations/x",
        "two/run/ablations/x",
    )
    assert names_of(one, one) == ("A", "B")

"""What `circuits cover` prints of sets."""

from circuits.cli.cover import UNITS, sets_table
from tests.circuits.printed import printed

OF_SET = {"samples": 321, "distinct": 1093, "share": 0.0123, "redundancy": None,
          "redundancy_at": 0.0477, "subset": None}  # fmt: skip


def test_a_set_has_a_line_for_each_unit_and_dashes_for_what_is_not_known():
    name = "[/mine]"
    units = {unit: {"sets": {name: OF_SET}} for unit in UNITS}
    record = {"keep": 0.95, "at": 40, "sets": [name], "units": units}
    lines = printed(sets_table, record).splitlines()
    found = [line for line in lines if "1,093" in line]
    assert len(found) == len(UNITS)
    assert [name in line for line in found] == [True, False, False]
    assert ["321" in line for line in found] == [True, False, False]
    assert all(line.count("–") == 3 for line in found)
    assert "n/m of 40" in lines[0]

"""Percentages by one rule: halves go away from zero, and small shares keep two digits."""

import pytest

from hooked_qwen.percents import percent


@pytest.mark.parametrize(
    ("share", "written"),
    [
        (0.0, "0%"), (1.0, "100%"), (0.625, "63%"), (0.615, "62%"), (0.285, "29%"),
        (0.145, "15%"), (0.12499, "12%"), (0.975, "98%"), (0.995, "100%"), (0.05, "5%"),
        (0.0525, "5.3%"), (0.0996, "10%"), (0.000123, "0.012%"), (0.00000125, "0.00013%"),
        (-0.625, "-63%"), (-0.0, "0%"), (2.5, "250%"), (1e-9, "0.0000001%"),
    ],
)  # fmt: skip
def test_a_share_is_whole_from_ten_percent_on_and_has_two_digits_below(share, written):
    assert percent(share) == written


def test_halves_go_up_where_python_s_own_rounding_makes_them_even():
    for half in range(10, 100):
        assert percent((half + 0.5) / 100) == f"{half + 1}%"

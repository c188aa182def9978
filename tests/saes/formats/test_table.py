"""Every layout is tried."""

from saes.formats.table import LAYOUTS, WRITTEN
from tests.saes.published import CASES, ONE_OF_EACH


def test_every_layout_is_tried():
    refused = {"dunefsky"}
    assert {CASES[name].layout for name in ONE_OF_EACH} | refused == {x.name for x in LAYOUTS}
    assert set(WRITTEN) == {"ours", "saelens", "sparsify", "circuit-tracer"}

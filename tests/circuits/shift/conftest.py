"""One seed of SHIFT on the bundled model."""

import pytest

from circuits.opening import load_model
from circuits.shift.case import CaseConfig, ShiftCase
from circuits.shift.texts import shift_data
from saes.suite import load_suite


@pytest.fixture(scope="module")
def case():
    model = load_model("bundled")
    config = CaseConfig(layer=2, estimator="patching", circuit_texts=16)
    return ShiftCase.of(
        model,
        load_suite("bundled"),
        shift_data("biographies", n=16, seed=0),
        config=config,
        seed=0,
    )

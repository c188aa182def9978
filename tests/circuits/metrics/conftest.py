"""Toy model, dictionaries and prompts of the tests of readouts, and a metric that is a feature."""

import pytest

from tests.circuits.metrics.probes import AT, FEATURE_SITE, on_most
from tests.toys import full_suite, shared_toy, toy_prompts


@pytest.fixture(scope="module")
def case():
    return shared_toy(), full_suite(), toy_prompts(n=3)


@pytest.fixture(scope="module")
def feature(case):
    """The metric of the transcoder's feature that is on in most prompts at one position."""
    return f"feature:{FEATURE_SITE}/{on_most(*case)}@{AT}"

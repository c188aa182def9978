"""Texts that a model is tuned on."""

import pytest

from tests.circuits.scope.tuning_texts import tuning_texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    return tuning_texts(tmp_path_factory.mktemp("texts"))

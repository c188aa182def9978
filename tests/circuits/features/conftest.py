"""A toy with a gain of both signs, its dictionaries, and a store of their examples."""

import pytest

from hooked_qwen.load import hook
from saes.examples.store import build_store
from tests.circuits.features.carded import CONFIG, NAMES, TEXT, dictionary, toy_with_gain
from tests.toys import (
    toy_tokenizer,
)


@pytest.fixture(scope="module")
def hf():
    return toy_with_gain()


@pytest.fixture(scope="module")
def model(hf):
    return hook(hf, tokenizer=toy_tokenizer(), name="toy")


@pytest.fixture(scope="module")
def suite():
    return [dictionary(text, seed) for seed, text in enumerate(NAMES)]


@pytest.fixture(scope="module")
def store(model, suite, tmp_path_factory):
    return build_store(model, suite, [TEXT], tmp_path_factory.mktemp("s") / "store", config=CONFIG)

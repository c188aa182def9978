"""Prompts that replacement graphs are made of: three pairs, and the first of them."""

import pytest

from tests.circuits.discovery.replaced import LENGTH, rows_of
from tests.toys import toy_prompts


@pytest.fixture(scope="module")
def prompts():
    return toy_prompts(n=3, length=LENGTH)


@pytest.fixture(scope="module")
def one(prompts):
    return rows_of(prompts, [0])

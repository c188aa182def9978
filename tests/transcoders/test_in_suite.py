"""Which dictionaries of a suite are transcoders."""

import pytest

from tests.toys import full_suite, shared_toy, toy_suite
from tests.transcoders.toys import (
    TOKENS,
)
from transcoders.replacement import replace_mlps
from transcoders.sources import TOKEN


def test_of_a_suite_the_transcoders_are_taken():
    model = replace_mlps(shared_toy(), full_suite(), TOKENS)
    assert [d.name for d in model.dictionaries] == ["mlp_out.1"]
    assert int((model.sources.kind == TOKEN).sum()) == len(TOKENS)


def test_without_transcoders_it_says_so():
    with pytest.raises(
        ValueError, match="the dictionaries that are there are mlp_out.1: train"
    ) as error:
        replace_mlps(shared_toy(), toy_suite("mlp_out.1"), TOKENS)
    assert "\n" not in str(error.value)

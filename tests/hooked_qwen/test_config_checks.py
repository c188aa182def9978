"""Checks of configurations, with one message for each."""

from dataclasses import dataclass

import pytest

from hooked_qwen.config_checks import check_at_least


@dataclass(frozen=True)
class Sizes:
    texts: int = 2
    layers: int | None = None


def test_a_field_that_is_too_small_is_named_and_one_not_given_is_none():
    check_at_least(2, Sizes(), "texts", "layers")
    with pytest.raises(ValueError, match="^layers is 1: expected at least 2$"):
        check_at_least(2, Sizes(layers=1), "texts", "layers")

"""A norm that is not known."""

import pytest

from tests.toys import toy
from tests.transcoders.toys import (
    TOKENS,
    suite_of,
)
from transcoders.replacement import replace_mlps


def test_an_unknown_norm_is_named():
    hooked = toy()
    norm = hooked.blocks[1].ln2.original_component
    norm.__class__ = type("OddNorm", (type(norm),), {})
    with pytest.raises(ValueError, match="cannot freeze the norm OddNorm: expected one of Qwen2"):
        replace_mlps(hooked, suite_of([1]), TOKENS)

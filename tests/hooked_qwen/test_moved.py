"""A name that moved is found where it was, with a warning that says where it is."""

import pytest

from hooked_qwen.moved import moved
from hooked_qwen.sites import Site

FOUND = moved("hooked_qwen.earlier", {"Site": "hooked_qwen.sites"})


def test_a_name_that_moved_is_found_with_a_warning():
    with pytest.warns(DeprecationWarning, match="Site is in hooked_qwen.sites: import it from"):
        assert FOUND("Site") is Site


def test_any_other_name_is_missing_as_from_any_module():
    with pytest.raises(AttributeError, match="module 'hooked_qwen.earlier' has no attribute 'No'"):
        FOUND("No")

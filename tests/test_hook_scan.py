"""A model's hooks are those that TransformerLens itself finds, by the same names."""

import pytest

from tests.hook_scan import scan, scan_in_full
from tests.transcoders.toys import MAKERS, toy_of


@pytest.mark.parametrize("family", MAKERS)
def test_the_same_hooks_are_found_in_the_same_order(family):
    model = toy_of(family)
    registry = model._hook_registry
    before, found = dict(registry), []
    for search in (scan, scan_in_full):
        registry.clear()
        for hook in before.values():
            hook.name = None
        search(model, model)
        found.append([(name, id(hook), hook.name) for name, hook in registry.items()])
    registry.clear()
    registry |= before
    assert len(found[0]) > 100
    assert found[0] == found[1]

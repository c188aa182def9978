"""Where a layer off leads to."""

from hooked_qwen.sites import Site
from saes.evaluation.conventions import SiteShift


def test_the_embedding_has_no_layer_before_or_after():
    moves = [SiteShift("embed", layers) for layers in (0, 1, -1)]
    assert [move.of(Site("embed")) for move in moves] == [Site("embed"), None, None]

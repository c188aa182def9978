"""The kinds of graph that there are, and how each is found."""

from collections.abc import Callable

from circuits.analysis import Analysis
from circuits.discovery.config import GraphMethod
from circuits.discovery.replacement import discover_replacement
from circuits.discovery.resume import NOTHING_KEPT, DiscoveryParts
from circuits.discovery.sparse_feature import Discovery, discover
from hooked_qwen.progress import Report, silent


def _replacement(analysis: Analysis, *, parts: DiscoveryParts, report: Report) -> Discovery:
    assert parts is NOTHING_KEPT, "nothing of a replacement graph is kept half done"
    return discover_replacement(analysis, report=report)


METHODS: dict[GraphMethod, Callable[..., Discovery]] = {
    "sparse-feature": discover,
    "replacement": _replacement,
}


def discover_by_method(
    analysis: Analysis, *, parts: DiscoveryParts = NOTHING_KEPT, report: Report = silent
) -> Discovery:
    """The graph of an analysis, of the kind that its configuration asks for."""
    return METHODS[analysis.config.method](analysis, parts=parts, report=report)

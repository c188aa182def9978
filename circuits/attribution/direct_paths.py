"""Direct paths: from which sites what leaves reaches a node, or the metric, passing no other site.

A path is cut at every site that has dictionaries; beyond a site of the whole residual stream
(`resid_post`) nothing earlier reaches anything directly.
"""

from collections.abc import Iterable

from circuits.attribution.decomposed_run import EMBED
from circuits.metrics.metric import Metric, reaching
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.suite import Suite


def sites_of(suite: Suite, node: Node) -> tuple[Site, ...]:
    """The sites that a node writes."""
    return suite.writes_of(node.site) if node.kind == "feature" else (Site.parse(node.site),)


def reaching_node(suite: Suite, node: Node) -> list[Site]:
    """The sites whose leaves can reach what `node` reads directly, latest first."""
    if node.kind == "feature":
        own, read = suite.writes_of(node.site), set(suite.reads_of(node.site))
    else:
        site = Site.parse(node.site)
        own = (site,)
        read = {site, *(r for name in suite.writing(site) for r in suite.reads_of(name))}
    written = suite.writes
    found = {s for r in read for s in upstream(written, r)}
    return sorted(found | {r for r in read if r in written and r not in own}, reverse=True)


def upstream(sites: Iterable[Site], site: Site | None) -> list[Site]:
    """The sites whose leaves can reach `site` directly (None: the end), latest first.

    They go back to the last cut through the whole residual stream.
    """
    found = []
    for earlier in sorted(sites, reverse=True):
        if site is None or earlier < site:
            found.append(earlier)
            if earlier.kind == "resid_post":
                return found
    return [*found, EMBED]


def to_output(suite: Suite, metric: Metric) -> list[Site]:
    """The sites whose leaves can reach the metric directly, latest first."""
    return upstream(reaching(metric, suite.writes), None)

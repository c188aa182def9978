"""From prompts to the exact graph of their replacement models.

Nodes are active features, errors and tokens; edges are what a source adds to a target's
pre-activation with attention patterns and norms frozen (`transcoders.replacement`):

    pre_activation(t) = bias(t) + sum over s of weight(s -> t)        where nothing is left out

A graph is found in three passes over each prompt. The first finds the influence of every node and
its effect (`circuits.discovery.tracing`); the second weighs the edges of the nodes that may be kept
(`circuits.discovery.linear_edges`); the third says through which heads the kept ones run
(`circuits.discovery.edge_heads`). None holds more edges than one sweep has, besides those among
nodes that may be kept.

    effect      what setting the node to its reference does to the outputs by all paths, with
                patterns and norms frozen and features responding one to one; its sign as ever
    influence   the node's share of all paths to the outputs, by the size of their edges

Of several prompts all numbers are means, a feature that is off counts as 0, and edges have their
`spread`, the standard deviation over prompts. Where positions are summed a feature is one node.
"""

import torch

from circuits.analysis import Analysis
from circuits.discovery.edge_heads import add_heads
from circuits.discovery.linear_edges import LinearEdges
from circuits.discovery.linear_graph import ends_of, graph_of, nodes_to_weigh
from circuits.discovery.path_graph import paths_to_keep
from circuits.discovery.replaced_prompts import Pinning, ReplacedPrompts
from circuits.discovery.sparse_feature import Discovery
from circuits.discovery.tracing import trace
from hooked_qwen.progress import Report, silent


def discover_replacement(
    analysis: Analysis, *, pinning: Pinning | None = None, report: Report = silent
) -> Discovery:
    """The replacement graph of the analysis' prompts; where nodes are pinned, of them so.

    Raises `ValueError` without transcoders, and for a metric that nothing can lead to.
    """
    prompts, config = ReplacedPrompts.of_transcoders(analysis, pinning), analysis.config
    analysis = prompts.analysis
    with torch.no_grad():
        tracing = trace(prompts, config.targets, report)
        on_paths = None
        if config.paths is not None:
            on_paths = paths_to_keep(prompts, config.paths, config.targets, report)
        pool = nodes_to_weigh(tracing.influence, config, on_paths)
        first = tracing.prompts[0]
        known = pool.known.to(first.key.device)
        outputs = len(first.outputs.outputs)
        edges = LinearEdges(known, outputs, summed=config.positions == "sum")
        for opened, traced in zip(prompts, tracing.prompts, strict=True):
            edges.add(opened, traced.influence, at_once=prompts.at_once)
            report("edges", opened.number + 1, len(prompts))
        graph = graph_of(analysis, tracing, pool, edges, on_paths)
        add_heads(graph, prompts, known, ends_of(pool, tracing), report)
    outliers: dict[str, int] = {}
    for traced in tracing.prompts:
        for name, count in traced.outliers.items():
            outliers[name] = outliers.get(name, 0) + count
    tokens = int(analysis.prompts.clean.mask.sum())
    return Discovery(graph, tracing.effects.inner(), {"tokens": tokens, "at": outliers})

"""The third pass over the prompts of a replacement graph: which heads each kept edge runs through.

    weight = direct + sum of heads + other_heads + rest

`heads` has the largest by size, as few as hold 95 % of the sizes of all, at most eight;
`other_heads` is the sum of those that are not listed. `factors` splits the direct path and each
listed head into what is of the prompt and what is of the weights alone, whose product it is
(`transcoders.loadings`); paths without the latter have none. Of several prompts, or summed
positions, all are means, or sums, as the weight is: the part of the weights is the same for each.

    influence of an edge   of its target's, by the edge's share of all that the target reads,
                           before anything was left out
    influence of a head    of each edge's, by the head's share of the sizes of the edge's paths

Axes: `edges` that are added up together, `heads` of the whole model, `pairs` of a source and a
target in one prompt.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from circuits.discovery.linear_edges import members
from circuits.discovery.replaced_prompts import Opened, ReplacedPrompts
from circuits.graph import Node, rounded
from hooked_qwen.progress import Report
from transcoders.loadings import Loadings, Readers, heads_of, loadings_of, readers_of
from transcoders.replacement import ReplacementModel
from transcoders.sources import FEATURE
from transcoders.weights import Head

SHARE, MOST = 0.95, 8
"Of the sizes of an edge's heads, what those that are listed hold; and how many are at most."
NUMBERS_AT_ONCE = 2**23
"Numbers of edges and heads that are added up together, 8 bytes each."
Edge = tuple[Node, Node]


class _Sums:
    """Loadings of some edges, added up over prompts in float64."""

    def __init__(self, edges: int, model: ReplacementModel) -> None:
        self.heads = heads_of(model)
        like = model.sources.activation.new_zeros(2, edges, dtype=torch.float64)
        each = like.new_zeros(3, edges, len(self.heads))
        self.total = Loadings(like[0], each[0], like[1], each[1], each[2])
        self.pairs = like.new_zeros(edges)
        self.has_rest = like.new_zeros(edges, dtype=torch.bool)

    def add(
        self, edge: Int[Tensor, " pairs"], found: Loadings, rest: Bool[Tensor, " pairs"]
    ) -> None:
        """Add pairs of a prompt, each to the edge of that number."""
        for name in ("direct", "heads", "direct_of_prompt", "heads_of_prompt", "pattern"):
            getattr(self.total, name).index_add_(0, edge, getattr(found, name).double())
        self.pairs.index_add_(0, edge, torch.ones_like(edge, dtype=torch.float64))
        self.has_rest[edge[rest]] = True


@dataclass(frozen=True)
class _Paths:
    """One edge's paths, means over prompts."""

    direct: float
    by_head: dict[str, float]
    "those that are not 0, the largest by size first"
    rest: float
    of_prompt: Mapping[str, float]
    "the prompt's factor of a path by its name, where it has one"
    pattern: Mapping[str, float]
    "by head, a mean over the pairs that there are"

    @property
    def sizes(self) -> dict[str, float]:
        """Of every path: `direct`, heads by their names, `rest`."""
        heads = {name: abs(weight) for name, weight in self.by_head.items()}
        return {"direct": abs(self.direct), **heads, "rest": abs(self.rest)}


def add_heads(
    graph: nx.DiGraph,
    prompts: ReplacedPrompts,
    known: Int[Tensor, " known"],
    ends: Sequence[Node],
    report: Report,
) -> None:
    """Give every edge of the graph its paths, and the graph the influence of its heads.

    `known` are keys of nodes, `ends` the nodes themselves; outputs come after those.
    """
    rank = {node: number for number, node in enumerate(ends)}
    edges = sorted(graph.edges, key=lambda pair: (rank[pair[1]], rank[pair[0]]))
    through: dict[str, float] = {}
    cfg = prompts.analysis.model.cfg
    at_once = max(1, NUMBERS_AT_ONCE // (3 * cfg.n_heads * cfg.n_layers))
    without: list[int] = []
    for first in range(0, len(edges), at_once):
        some, sums = edges[first : first + at_once], None
        ranks = torch.tensor([(rank[s], rank[t]) for s, t in some], device=known.device)
        for opened in prompts:
            sums = sums or _Sums(len(some), opened.model)
            for pairs in _pairs(opened, known, ranks):
                sums.add(*pairs)
            without = _without_heads(opened.model)
            report("heads", opened.number + 1, len(prompts))
        assert sums is not None, "there is a prompt"
        for edge, paths in zip(some, _means(graph, some, sums, len(prompts)), strict=True):
            graph.edges[edge].update(_fields(paths))
            _share_out(through, paths, graph.edges[edge]["influence"])
    graph.graph["heads"] = _of_graph(through) | {"layers_without_heads": without}


def _pairs(
    opened: Opened, known: Int[Tensor, " known"], ranks: Int[Tensor, "edges 2"]
) -> Iterator[tuple[Tensor, Loadings, Tensor]]:
    """The pairs of a source and a target that the edges stand for in a prompt."""
    model, kind = opened.model, opened.model.sources.kind
    member, rank = members(known, opened.key)
    wanted = torch.isin(rank, ranks[:, 1]) & (kind[member] == FEATURE)
    readers, of_reader = _readers(opened, member[wanted], rank[wanted], len(known))
    edge, source, target = _joined(ranks, rank, of_reader)
    source = member[source]
    causal = model.sources.position[source] <= readers.position[target]
    edge, source, target = edge[causal], source[causal], target[causal]
    at_once = max(1, NUMBERS_AT_ONCE // max(1, len(heads_of(model))))
    for some in torch.arange(len(edge), device=edge.device).split(at_once):
        s, t = source[some], target[some]
        yield edge[some], loadings_of(model, readers, s, t), _has_rest(model, readers, s, t)


def _readers(
    opened: Opened, features: Tensor, rank: Tensor, known: int
) -> tuple[Readers, Int[Tensor, " targets"]]:
    """Features and all outputs as targets, and the rank of each."""
    model, outputs = opened.model, opened.outputs
    layer = model.read_layer(features)
    several, ranks = [], []
    for number in layer.unique().tolist():
        several.append(model.features(features[layer == number]))
        ranks.append(rank[layer == number])
    return readers_of(model, [*several, outputs.targets]), torch.cat([*ranks, known + outputs.of])


def _joined(
    ranks: Int[Tensor, "edges 2"],
    of_source: Int[Tensor, " sources"],
    of_target: Int[Tensor, " targets"],
) -> tuple[Int[Tensor, " pairs"], Int[Tensor, " pairs"], Int[Tensor, " pairs"]]:
    """Every pair of a source and a target whose ranks are an edge's: the edge, and both."""
    size = int(max(ranks.max(), of_source.max(), of_target.max())) + 1
    place = [each.sort(stable=True).indices for each in (of_source, of_target)]
    count = [torch.bincount(each, minlength=size) for each in (of_source, of_target)]
    start = [each.cumsum(0) - each for each in count]
    n = [count[i][ranks[:, i]] for i in (0, 1)]
    edge = torch.repeat_interleave(n[0] * n[1])
    before = (n[0] * n[1]).cumsum(0) - n[0] * n[1]
    number = torch.arange(len(edge), device=edge.device) - before[edge]
    within = number // n[1][edge], number % n[1][edge]
    found = [place[i][start[i][ranks[edge, i]] + within[i]] for i in (0, 1)]
    return edge, found[0], found[1]


def _has_rest(
    model: ReplacementModel, readers: Readers, source: Tensor, target: Tensor
) -> Bool[Tensor, " pairs"]:
    """Whether anything but the direct path and single heads can lead from source to target."""
    without = torch.tensor(_without_heads(model), device=source.device)
    apart = readers.layer[target] - model.sources.layer[source]
    return (apart > 1) | ((apart == 1) & torch.isin(readers.layer[target], without))


def _means(graph: nx.DiGraph, some: Sequence[Edge], sums: _Sums, n: int) -> Iterator[_Paths]:
    total, names = sums.total, [_name(head) for head in sums.heads]
    columns = (total.direct, total.heads, total.direct_of_prompt, total.heads_of_prompt)
    direct, heads, of_direct, of_heads = ((column / n).tolist() for column in columns)
    pattern = (total.pattern / sums.pairs.clamp(min=1)[:, None]).tolist()
    for i, edge in enumerate(some):
        found = {name: w for name, w in zip(names, heads[i], strict=True) if w}
        order = sorted(found, key=lambda name: -abs(found[name]))
        rest = graph.edges[edge]["weight"] - direct[i] - sum(found.values())
        yield _Paths(
            direct=direct[i],
            by_head={name: found[name] for name in order},
            rest=rest if sums.has_rest[i] else 0.0,
            of_prompt={"direct": of_direct[i]} | dict(zip(names, of_heads[i], strict=True)),
            pattern=dict(zip(names, pattern[i], strict=True)),
        )


def _fields(paths: _Paths) -> dict[str, Any]:
    """What an edge of the graph says of its paths."""
    listed = _largest(paths.by_head)
    others = [weight for name, weight in paths.by_head.items() if name not in listed]
    factors = {}
    for name, weight in {"direct": paths.direct, **listed}.items():
        if of_prompt := paths.of_prompt[name]:
            factors[name] = {"prompt": rounded(of_prompt), "weights": rounded(weight / of_prompt)}
            if name in paths.pattern:
                factors[name]["pattern"] = rounded(paths.pattern[name])
    return {
        "direct": rounded(paths.direct),
        "heads": {name: rounded(weight) for name, weight in listed.items()},
        **({"other_heads": rounded(sum(others))} if others else {}),
        "rest": rounded(paths.rest),
        "factors": factors,
    }


def _largest(by_head: Mapping[str, float]) -> dict[str, float]:
    """As few as hold `SHARE` of the sizes of all, `MOST` at most; `by_head` has them in order."""
    total, held = sum(map(abs, by_head.values())), 0.0
    found: dict[str, float] = {}
    for name, weight in by_head.items():
        if len(found) == MOST or held >= SHARE * total:
            break
        found[name] = weight
        held += abs(weight)
    return found


def path_sizes(data: Mapping[str, Any]) -> dict[str, float]:
    """Of every path that an edge of the graph lists, by its name."""
    named = {name: data.get(name, 0.0) for name in ("direct", "other_heads", "rest")}
    return {name: abs(weight) for name, weight in {**named, **data["heads"]}.items()}


def _share_out(through: dict[str, float], paths: _Paths, influence: float) -> None:
    """Add an edge's influence to what runs through each of its paths."""
    sizes = paths.sizes
    if total := sum(sizes.values()):
        for name, size in sizes.items():
            through[name] = through.get(name, 0.0) + influence * size / total


def _of_graph(through: Mapping[str, float]) -> dict[str, Any]:
    """Shares of the influence that runs along all edges."""
    total = sum(through.values()) or 1.0
    heads = {name: value for name, value in through.items() if name not in ("direct", "rest")}
    ranked = sorted(heads, key=lambda name: (-heads[name], name))
    return {
        "direct": rounded(through.get("direct", 0.0) / total),
        "rest": rounded(through.get("rest", 0.0) / total),
        "influence": {name: rounded(heads[name] / total) for name in ranked},
    }


def _without_heads(model: ReplacementModel) -> list[int]:
    """Layers whose mixer has none: gated delta nets."""
    there = {head.layer for head in heads_of(model)}
    return [number for number in range(len(model.frozen.layers)) if number not in there]


def _name(head: Head) -> str:
    return f"{head.layer}.{head.head}"

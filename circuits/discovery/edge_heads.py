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
from itertools import islice
from typing import Any

import networkx as nx
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuits.discovery.linear_edges import members
from circuits.discovery.replaced_prompts import ReplacedPrompt, ReplacedPrompts
from circuits.graph import Node, rounded, rounded_each
from hooked_qwen.progress import Report
from transcoders.loadings import Loadings, Readers, heads_of, loadings_of, readers_of
from transcoders.replacement import ReplacementModel
from transcoders.sources import FEATURE
from transcoders.weights import Head

SHARE, MOST = 0.95, 8
"Of the sizes of an edge's heads, what those that are listed hold; and how many are at most."
NUMBERS_AT_ONCE = 2**23
"Numbers of edges and heads that are added up together, 8 bytes each."
DIRECT = "direct"


class _LoadingSums:
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
    """The paths of some edges, means over prompts."""

    direct: Float[Tensor, " edges"]
    heads: Float[Tensor, "edges heads"]
    rest: Float[Tensor, " edges"]
    of_prompt: Float[Tensor, "edges paths"]
    "the prompt's factor of the direct path and of each head; 0 where a path has none"
    pattern: Float[Tensor, "edges heads"]
    "a mean over the pairs that there are"


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
    cfg = prompts.analysis.model.cfg
    at_once = max(1, NUMBERS_AT_ONCE // (3 * cfg.n_heads * cfg.n_layers))
    through, names, without = [], [], []
    for first in range(0, len(edges), at_once):
        some, sums = edges[first : first + at_once], None
        ranks = torch.tensor([(rank[s], rank[t]) for s, t in some], device=known.device)
        for opened in prompts:
            sums = sums or _LoadingSums(len(some), opened.model)
            for pairs in _pairs(opened, known, ranks):
                sums.add(*pairs)
            without = _without_heads(opened.model)
            report("heads", opened.number + 1, len(prompts))
        assert sums is not None, "there is a prompt"
        data = [graph.edges[edge] for edge in some]
        paths, names = _means(sums, len(prompts), data), [_name(head) for head in sums.heads]
        for edge, fields in zip(data, _fields(paths, names), strict=True):
            edge.update(fields)
        through.append(_through(paths, data))
    graph.graph["heads"] = _of_graph(through, names) | {"layers_without_heads": without}


def _pairs(
    opened: ReplacedPrompt, known: Int[Tensor, " known"], ranks: Int[Tensor, "edges 2"]
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
    opened: ReplacedPrompt, features: Tensor, rank: Tensor, known: int
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


def _means(sums: _LoadingSums, n: int, edges: Sequence[Mapping[str, Any]]) -> _Paths:
    """Of `n` prompts; `rest` is what the paths leave of the edges' weights."""
    total = sums.total
    direct, heads = total.direct / n, total.heads / n
    weight = direct.new_tensor([edge["weight"] for edge in edges])
    return _Paths(
        direct=direct,
        heads=heads,
        rest=(weight - direct - heads.sum(1)).masked_fill(~sums.has_rest, 0),
        of_prompt=torch.cat([total.direct_of_prompt[:, None], total.heads_of_prompt], 1) / n,
        pattern=total.pattern / sums.pairs.clamp(min=1)[:, None],
    )


def _fields(paths: _Paths, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """What each edge of the graph says of its paths."""
    head, listed = _largest(paths.heads)
    others = paths.heads.scatter(1, head, paths.heads.gather(1, head).masked_fill(listed, 0))
    alone = torch.stack([paths.direct, others.sum(1), paths.rest], 1)
    has_others = (others != 0).any(1).tolist()
    counts, of_paths = listed.sum(1).tolist(), _listed_paths(paths, head, listed, names)
    for edge, (direct, other, rest) in enumerate(_rounded_rows(alone)):
        heads, factors = {}, {}
        for name, weight, *factor in islice(of_paths, 1 + counts[edge]):
            if name != DIRECT:
                heads[name] = weight
            if factor[0]:
                factors[name] = dict(zip(("prompt", "weights", "pattern"), factor, strict=False))
        yield {
            "direct": direct,
            "heads": heads,
            **({"other_heads": other} if has_others[edge] else {}),
            "rest": rest,
            "factors": factors,
        }


def _largest(
    heads: Float[Tensor, "edges heads"],
) -> tuple[Int[Tensor, "edges most"], Bool[Tensor, "edges most"]]:
    """The largest heads of each edge, the largest first, and which of them are listed.

    As few as hold `SHARE` of the sizes of all, `MOST` at most.
    """
    size, order = heads.abs().sort(dim=1, descending=True, stable=True)
    held = size.cumsum(1)
    listed = (held - size < SHARE * held[:, -1:]) & (size > 0)
    return order[:, :MOST], listed[:, :MOST]


def _listed_paths(
    paths: _Paths,
    head: Int[Tensor, "edges most"],
    listed: Bool[Tensor, "edges most"],
    names: Sequence[str],
) -> Iterator[tuple[Any, ...]]:
    """Edge by edge the direct path and the listed heads: name, weight, factors.

    The factors are the prompt's, that of the weights and, of a head, its pattern.
    """
    weight = torch.cat([paths.direct[:, None], paths.heads.gather(1, head)], 1)
    of_prompt = paths.of_prompt.gather(1, F.pad(head + 1, (1, 0)))
    of_weights = (weight / of_prompt).masked_fill(of_prompt == 0, 0)
    pattern = F.pad(paths.pattern.gather(1, head), (1, 0))
    there = F.pad(listed, (1, 0), value=True)
    numbers = torch.stack([weight, of_prompt, of_weights, pattern], -1)[there]
    number = F.pad(head, (1, 0), value=-1)[there]
    for at, row in zip(number.tolist(), _rounded_rows(numbers), strict=True):
        yield (DIRECT, *row[:3]) if at < 0 else (names[at], *row)


def _rounded_rows(numbers: Float[Tensor, "rows columns"]) -> Iterator[tuple[float, ...]]:
    """Rows of numbers as a graph has them."""
    found = iter(rounded_each(numbers.flatten().tolist()))
    return zip(*[found] * numbers.shape[1], strict=True)


def path_sizes(data: Mapping[str, Any]) -> dict[str, float]:
    """Of every path that an edge of the graph lists, by its name."""
    named = {name: data.get(name, 0.0) for name in ("direct", "other_heads", "rest")}
    return {name: abs(weight) for name, weight in {**named, **data["heads"]}.items()}


def _through(paths: _Paths, edges: Sequence[Mapping[str, Any]]) -> Float[Tensor, "2 paths"]:
    """The edges' influence through each of their paths, and how many edges have such a path."""
    sizes = torch.cat([paths.direct[:, None], paths.heads, paths.rest[:, None]], 1).abs()
    influence = sizes.new_tensor([edge["influence"] for edge in edges])
    total = sizes.sum(1)
    share = influence / torch.where(total > 0, total, 1)
    return torch.stack([share @ sizes, (sizes > 0).sum(0).double()])


def _of_graph(through: Sequence[Tensor], names: Sequence[str]) -> dict[str, Any]:
    """Shares of the influence that runs along all edges; `through` has those of some each."""
    value, edges = torch.stack([*through]).sum(0).tolist() if through else [[0.0] * 2] * 2
    total = sum(value) or 1.0
    heads = {
        name: influence
        for name, influence, there in zip(names, value[1:-1], edges[1:-1], strict=True)
        if there
    }
    ranked = sorted(heads, key=lambda name: (-heads[name], name))
    return {
        "direct": rounded(value[0] / total),
        "rest": rounded(value[-1] / total),
        "influence": {name: rounded(heads[name] / total) for name in ranked},
    }


def _without_heads(model: ReplacementModel) -> list[int]:
    """Layers whose mixer has none: gated delta nets."""
    there = {head.layer for head in heads_of(model)}
    return [number for number in range(len(model.frozen.layers)) if number not in there]


def _name(head: Head) -> str:
    return f"{head.layer}.{head.head}"

"""The strongest paths of a prompt to a target, from tokens, errors and constants through features.

In the replacement model (`transcoders.replacement`) every feature on a path is a sum of what leads
into it, so that a target is a sum over paths. With w(s -> t) the weight of an edge, in units of
t's pre-activation, and a the activation of a feature,

    path s, f, ..., g, t     w(s -> f) / a_f  *  ...  *  w(g -> t)         in units of the target

A path begins at a token, at an error, or with the constant part of a feature or of the target (its
bias, decoders' biases, and what its activation is beyond its pre-activation): all paths add up to
the target exactly. With a budget, features whose inputs were not weighed are where paths begin too;
they still add up.

The paths that are given are the strongest of all by size, not a greedy choice: see
`transcoders.chains`. Merged into a graph an edge has the weight of the paths through it, so that a
path that is the beginning of others is not counted again; where all paths are taken it is the
edge's weight times the target's slope along all that follows.

Source: Dunefsky et al. 2024, arXiv:2406.11944 (greedy computational paths). Differs: exact.

Axes: as in `transcoders.replacement`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from hooked_qwen.nodes import Node
from transcoders.chains import CONSTANT, Chain, Fan, grow, strongest, summed
from transcoders.loadings import heads_of, loadings_of, readers_of
from transcoders.replacement import ReplacementModel, TargetInputs, Targets
from transcoders.sources import ERROR, FEATURE, TOKEN
from transcoders.weights import Head

TRACED = 500
"Features whose inputs are weighed, unless more are asked for."
Ways = Literal["together", "by head"]
"Whether what takes different ways between the same ends is one path, or one for each head."
Way = Head | Literal["all", "direct", "rest"]


@dataclass(frozen=True)
class Path:
    """One path, and what it adds to its target."""

    sources: tuple[int, ...]
    "numbers of sources, from where it begins; none for the constant part of the target itself"
    ways: tuple[Way, ...]
    "how each of them gets to the next, the last of them to the target"
    target: int
    "which of the targets"
    weight: float
    begins: Literal["token", "error", "constant", "not traced"]
    "`constant`: with the constant part of its first feature, or of the target"


@dataclass(frozen=True)
class Paths:
    """The strongest paths to some targets, the strongest first."""

    model: ReplacementModel
    targets: Targets
    shares: tuple[float, ...]
    "what each target counts for"
    found: tuple[Path, ...]
    values: Float[Tensor, " targets"]
    "what each target is: the sum of all of its paths"
    traced: int
    "features whose inputs were weighed"

    def __len__(self) -> int:
        return len(self.found)

    def __iter__(self) -> Iterator[Path]:
        return iter(self.found)

    @property
    def total(self) -> float:
        """The targets by their shares."""
        return float(sum(s * v for s, v in zip(self.shares, self.values.tolist(), strict=True)))

    @property
    def weight(self) -> float:
        """What the paths that were found add up to."""
        return sum(path.weight for path in self.found)

    def nodes(self, path: Path) -> list[Node]:
        """The sources of a path as nodes."""
        return [node_of(self.model, source) for source in path.sources]

    def graph(self, outputs: Sequence[Node]) -> nx.DiGraph:
        """The paths merged into one graph, the targets called `outputs`.

        Nodes and edges have `paths`, the weight of the paths through them; nodes `constant` too,
        that of the paths that begin with their constant part.
        """
        graph = nx.DiGraph()
        names = self._names(outputs)
        for chain in map(self._chain, self.found):
            inner = [node for node in chain.nodes if node != CONSTANT]
            for node in inner:
                graph.add_node(names(node))
                _add(graph.nodes[names(node)], "paths", chain.weight)
            if len(inner) < len(chain.nodes):
                _add(graph.nodes[names(inner[0])], "constant", chain.weight)
        for (source, target), weight in summed(map(self._chain, self.found)).items():
            if source != CONSTANT:
                graph.add_edge(names(source), names(target), paths=weight)
        return graph

    def _names(self, outputs: Sequence[Node]) -> Callable[[int], Node]:
        n = len(self.model.sources)
        return lambda number: outputs[number - n] if number >= n else node_of(self.model, number)

    def _chain(self, path: Path) -> Chain:
        begins = (CONSTANT,) if path.begins == "constant" else ()
        nodes = (*begins, *path.sources, len(self.model.sources) + path.target)
        return Chain(nodes, (0,) * (len(nodes) - 1), path.weight)


def _add(data: dict[str, float], name: str, value: float) -> None:
    data[name] = data.get(name, 0.0) + value


def node_of(model: ReplacementModel, source: int) -> Node:
    """A source as a node."""
    sources, at = model.sources, int(model.sources.position[source])
    kind = int(sources.kind[source])
    if kind == FEATURE:
        return Node(model.names[int(sources.dictionary[source])], int(sources.feature[source]), at)
    if kind == TOKEN:
        return Node("embed", "token", at)
    assert kind == ERROR, "a bias is no node"
    return Node(f"mlp_out.{int(sources.layer[source])}", "error", at)


@torch.no_grad()
def find_paths(
    model: ReplacementModel,
    targets: Targets,
    k: int,
    *,
    shares: Sequence[float] | None = None,
    traced: int = TRACED,
    ways: Ways = "together",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Paths:
    """The `k` strongest paths to some targets by size, each target by its share (1 by default).

    Of at most `traced` features the inputs are weighed, those that the largest product of edges
    leads on from; paths begin at the others.
    """
    shares = [1.0] * len(targets.vectors) if shares is None else list(shares)
    ask = _Fans(model, ways)
    n, root = len(model.sources), len(model.sources) + len(shares)
    known = ask.of_targets(targets)
    ends = np.arange(n, root)
    known[root] = Fan(ends, np.array(shares, dtype=float), np.zeros_like(ends))
    has_fan = (model.sources.kind == FEATURE).cpu().numpy()
    values = torch.tensor(
        [float(known[end].factor.sum()) for end in ends.tolist()], dtype=torch.float64
    )
    grow(known, n, traced, has_fan, ask.of_features, ask.order, report=report)
    found = tuple(ask.path(chain, known) for chain in strongest(known, root, k, ask.order))
    return Paths(model, targets, tuple(shares), found, values, len(known) - len(shares) - 1)


class _Fans:
    """What leads into the targets and the features of a prompt; targets come after all sources."""

    def __init__(self, model: ReplacementModel, ways: Ways) -> None:
        self.model, self.ways = model, ways
        self.heads = heads_of(model) if ways == "by head" else []
        features = model.sources.kind == FEATURE
        reads = torch.full_like(model.sources.kind, CONSTANT)
        reads[features] = model.read_layer(features.nonzero().squeeze(-1))
        self._reads = reads.tolist()

    def order(self, node: int) -> int:
        """Features by the layer that they read; targets and their root come last."""
        return self._reads[node] if node < len(self._reads) else len(self._reads) + node

    def of_targets(self, targets: Targets) -> dict[int, Fan]:
        inputs = self.model.inputs(targets)
        ones = torch.ones(len(targets.vectors), dtype=torch.float64)
        total = inputs.weight.double().sum(0) + inputs.bias.double()
        first = len(self.model.sources)
        return {
            first + i: fan for i, fan in enumerate(self._fans(targets, inputs, total.cpu(), ones))
        }

    def of_features(self, chosen: Sequence[int]) -> dict[int, Fan]:
        found: dict[int, Fan] = {}
        for group in self.model.grouped(torch.tensor(sorted(chosen), device=self._device)):
            targets = self.model.features(group)
            activation = self.model.sources.activation[group].double().cpu()
            fans = self._fans(targets, self.model.inputs(targets), activation, activation)
            found |= dict(zip(group.tolist(), fans, strict=True))
        return found

    @property
    def _device(self) -> torch.device:
        return self.model.sources.kind.device

    def _fans(
        self,
        targets: Targets,
        inputs: TargetInputs,
        total: Float[Tensor, " targets"],
        unit: Float[Tensor, " targets"],
    ) -> list[Fan]:
        """What leads into each target, of which `total` is the whole, divided by a `unit`."""
        weight = inputs.weight.double().cpu()
        found = []
        for i in range(weight.shape[1]):
            source = weight[:, i].nonzero().squeeze(-1)
            factor, constant = weight[source, i], float(total[i] - weight[:, i].sum())
            way = torch.zeros_like(source)
            if self.ways == "by head":
                source, way, factor = self._split(targets, i, source, factor)
            found.append(
                Fan(
                    np.append(source.numpy(), CONSTANT),
                    np.append(factor.numpy(), constant) / float(unit[i]),
                    np.append(way.numpy(), 0),
                )
            )
        return found

    def _split(
        self, targets: Targets, i: int, source: Tensor, total: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Edges into one target by the way they take: direct, the rest, each head."""
        readers = readers_of(self.model, [_one(targets, i)])
        at = source.to(self._device)
        found = loadings_of(self.model, readers, at, torch.zeros_like(at))
        by_way = torch.cat([found.direct[:, None], found.heads], 1).double().cpu()
        rest = total - by_way.sum(1)
        # What is left of the rounding of the others is no path.
        rest[rest.abs() < 1e-6 * by_way.abs().sum(1)] = 0.0
        by_way = torch.cat([by_way[:, :1], rest[:, None], by_way[:, 1:]], 1)
        edge, way = by_way.nonzero(as_tuple=True)
        return source[edge], way + 1, by_way[edge, way]

    def path(self, chain: Chain, known: dict[int, Fan]) -> Path:
        """A chain to the root as a path."""
        constant = chain.nodes[0] == CONSTANT
        nodes, ways = chain.nodes[constant:-2], chain.ways[constant:-1]
        return Path(
            sources=nodes,
            ways=tuple(self._way(way) for way in ways),
            target=chain.nodes[-2] - len(self.model.sources),
            weight=chain.weight,
            begins="constant" if constant else self._kind(nodes[0]),
        )

    def _kind(self, source: int) -> Literal["token", "error", "not traced"]:
        kind = int(self.model.sources.kind[source])
        return "token" if kind == TOKEN else "error" if kind == ERROR else "not traced"

    def _way(self, way: int) -> Way:
        names: tuple[Way, ...] = ("all", "direct", "rest")
        return names[way] if way < len(names) else self.heads[way - len(names)]


def _one(targets: Targets, i: int) -> Targets:
    """One of some targets."""
    return Targets(
        targets.site,
        targets.vectors[i : i + 1],
        targets.position[i : i + 1],
        targets.constant[i : i + 1],
    )

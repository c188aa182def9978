"""Passes of the model that checks of a run make, and their operations, before any is made.

A pass runs what of the model lies behind a site, of some rows and positions. It is counted by the
MLPs that it runs, which is what tells passes of part of a model apart, and by the tokens that go
through them. What depends on values is taken as its most: every node changes on every prompt.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from math import ceil

import torch

from circuits.ablation.exact_effects import ROWS_AT_ONCE, TOKENS_AT_ONCE
from circuits.ablation.path_patching import by_source, layers_between
from circuits.attribution.deltas import by_name
from circuits.attribution.direct_paths import sites_of
from circuits.attribution.effects import TOKENS_AT_ONCE as POINTS_AT_ONCE
from circuits.attribution.state import EMBED, KEPT
from circuits.graph import Edge
from circuits.metrics.metric import logit_difference
from circuits.runs.needs import DiscoverySize, after
from hooked_qwen.cost import ModelCost
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.formats.shapes import DictionaryShape
from saes.intervention import touched
from saes.nodes import NodeSet
from saes.suite import Suite


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Passes of one kind."""

    name: str
    count: int = 0
    mlps: int = 0
    "that they run"
    tokens: int = 0
    "that go through these"
    forward: float | int = 0
    "floating-point operations, where nothing is differentiated"
    both: float | int = 0
    "of passes forward and backward"
    backward: float | int = 0
    "what the way back would take, where it is not gone"
    edited: int = 0
    "features of the dictionaries whose nodes are set, once for each token of each pass"
    coordinates: int = 0
    "the same of coordinates of tensors"
    encoded: int = 0
    "features of the dictionaries that only encode, once for each token"

    def __add__(self, other: "Passes") -> "Passes":
        """Both, by the name of the first."""
        return replace(self, **{n: getattr(self, n) + getattr(other, n) for n in SUMMED})


SUMMED = tuple(one.name for one in fields(Passes) if one.name != "name")


@dataclass(frozen=True)
class PassCounter:
    """Counts passes over the prompts of a task."""

    model: ModelCost
    suite: Suite
    "of which no dictionary is read"
    shapes: Sequence[DictionaryShape]
    task: DiscoverySize

    @property
    def batches(self) -> list[int]:
        """Prompts of each batch."""
        size, n = self.task.config.batch_size, self.task.prompts
        return [min(size, n - start) for start in range(0, n, size)]

    @cached_property
    def features(self) -> int:
        """Of all dictionaries."""
        return sum(shape.features for shape in self.shapes)

    @property
    def first_layer(self) -> int:
        """At which a pass begins in which nodes of all sites are set."""
        return min(site.layer for site in self.suite.writes)

    def whole(self, name: str, times: int = 1) -> Passes:
        """Every prompt, `times` times from its tokens."""
        found = Passes(name=name)
        for rows in self.batches:
            found += self.resumed(rows, 0)
        return _times(found, times)

    def resumed(self, rows: int, first: int, stop: int | None = None) -> Passes:
        """One pass of the blocks from `first` on, at all positions."""
        layers = self.model.layers(1, self.task.tokens)[first:stop]
        return Passes(
            name="",
            count=1,
            mlps=len(layers),
            tokens=len(layers) * rows * self.task.tokens,
            forward=rows * sum(c.forward for c in layers),
            backward=rows * sum(c.backward for c in layers),
        )

    def behind(self, rows: int, site: Site, positions: int, *, whole: bool = False) -> Passes:
        """One pass from where a site's tensor is another one, its last MLP at the last position.

        Where the model has hooks, the site's `whole` block is run, and all positions.
        """
        stream = site.kind in ("embed", "resid_post")
        if whole:
            return self.resumed(rows, site.layer + stream)
        layers, at = self.model.layers(1, positions), max(site.layer, 0)
        full = layers[site.layer + 1 :]
        found = Passes(
            name="",
            count=1,
            mlps=len(full),
            tokens=rows * (positions * len(full) - (positions - 1) * bool(full)),
            forward=rows * sum(after(layers, site, positions)),
            backward=rows * sum(cost.backward for cost in full),
        )
        if stream or site.kind == "mlp_out":
            return found
        # Behind attention its layer's MLP runs, and inside an MLP its whole block.
        one = Passes(name="", mlps=1, tokens=rows * positions, backward=rows * layers[at].mlp)
        if site.kind != "attn_out":
            whole_block = layers[at].forward, layers[at].backward
            one = replace(one, forward=rows * whole_block[0], backward=rows * whole_block[1])
        return found + one

    def gradients(
        self, name: str, estimator: str, sites: Sequence[Site], *, under: int | None = None
    ) -> Passes:
        """One estimator's gradients at `sites`.

        `under` an edit, which hooks the model, so many features are set of every token.
        """
        task, found = self.task, Passes(name=name)
        moving = [EMBED] if task.config.reference == "patch" else []
        for rows in self.batches:
            tokens = rows * task.tokens
            if estimator in ("patching", "relp"):
                found += self.resumed(rows, 0) + Passes(name="", edited=tokens * (under or 0))
                continue
            steps = torch.arange(task.config.steps)
            points = [len(x) for x in steps.split(max(1, POINTS_AT_ONCE // tokens))]
            for some in points:
                edited = Passes(name="", edited=some * tokens * (under or 0))
                if estimator == "ig-inputs":
                    found += self.resumed(some * rows, 0) + edited
                    continue
                for site in [*moving, *sites]:
                    one = self.behind(some * rows, site, task.run, whole=under is not None)
                    found += one + edited
        return replace(found, forward=0, both=found.forward + found.backward, backward=0)

    def circuits(self, name: str, n: int, first: int, features: int | None = None) -> Passes:
        """`n` sets of nodes, as many in a pass as `metrics_with` runs side by side."""
        found, tokens = Passes(name=name), self.task.tokens
        for rows in self.batches:
            together = max(1, TOKENS_AT_ONCE // (rows * tokens))
            for some in _parts(n, together):
                found += self.resumed(some * rows, first)
        features = self.features if features is None else features
        return replace(found, edited=n * self.task.prompts * tokens * features)

    def every_move(self, name: str, at_a_token: Mapping[Site, float]) -> Passes:
        """As many nodes at each token of a site, each set alone."""
        found, limit = Passes(name=name), self.rows_at_once
        pairs = self.task.prompts * self.task.run
        for site, nodes in at_a_token.items():
            one = self.behind(limit, site, self.task.run)
            found += _times(one, ceil(pairs * nodes / limit))
        return found

    def groups(self, name: str, groups: Sequence[Sequence[Node]]) -> Passes:
        """Sets of nodes that are set together, each set alone."""
        found, tokens = Passes(name=name), self.task.tokens
        moved = [touched(self.suite, NodeSet.of(group)) for group in groups]
        for rows in self.batches:
            together = max(1, TOKENS_AT_ONCE // (rows * tokens))
            for start in range(0, len(moved), together):
                sites = {site for some in moved[start : start + together] for site in some}
                some = len(moved[start : start + together])
                first = min((site.layer for site in sites), default=self.first_layer)
                found += self.resumed(some * rows, first)
                edited = some * rows * tokens * self.features_at(sites)
                found += Passes(name="", edited=edited)
        return found

    def at(self, sites: Iterable[Site]) -> "PassCounter":
        """The same of those dictionaries alone that write any of `sites`."""
        suite = self.suite.at(sites)
        return replace(self, suite=suite, shapes=[s for s in self.shapes if s.name in suite])

    def features_at(self, sites: Iterable[Site]) -> int:
        """Features of the dictionaries that write any of `sites`."""
        return self.at(sites).features

    def moves(self, name: str, nodes: Sequence[Node]) -> Passes:
        """Every node set alone on every prompt, as `exact_effects` runs them."""
        found = Passes(name=name)
        for rows in self.batches:
            limit = self.rows_at_once
            size = max(1, 4 * limit // rows)
            for _, alike in by_name(nodes):
                for start in range(0, len(alike), size):
                    some = alike[start : start + size]
                    at = [node.position for node in some if node.position is not None]
                    first = min(at) if len(at) == len(some) else self.task.first
                    sites = sites_of(self.suite, some[0])
                    for part in _parts(len(some) * rows, limit):
                        found += self._moved(part, sites, self.task.tokens - first)
        return found

    def _moved(self, rows: int, sites: Sequence[Site], positions: int) -> Passes:
        if len(sites) == 1:
            return self.behind(rows, sites[0], positions)
        return self.resumed(rows, min(sites).layer)

    def edges(self, name: str, edges: Sequence[Edge]) -> Passes:
        """The sources of some edges, each set alone, as `exact_edges` runs them."""
        found, metric = Passes(name=name), logit_difference([[0]], [[0]])
        for members in by_source(self.suite, metric, edges).values():
            sources = list(dict.fromkeys(edges[i][0] for i in members))
            targets = list(dict.fromkeys(edges[i][1] for i in members))
            sites = sites_of(self.suite, sources[0])
            first, last = layers_between(self.suite, min(sites), targets, self.model.n_layers)
            read = {(n.site, n.kind, n.position) for n in targets if n.kind != "logit"}
            encoded = sum(self._encoded(site, position) for site, _, position in read)
            for rows in self.batches:
                for some in _parts(len(sources), max(1, 4 * self.rows_at_once // rows)):
                    for part in _parts(some * rows, self.rows_at_once):
                        found += self.resumed(part, first, last + 1)
                        found += Passes(name="", encoded=part * encoded)
        return found

    def _encoded(self, site: str, position: int | None) -> int:
        """Features that are encoded of one row, for a target at a position or at all of them."""
        names = [site] if site in self.suite else self.suite.writing(Site.parse(site))
        features = sum(shape.features for shape in self.shapes if shape.name in names)
        return features * (self.task.tokens if position is None else 1)

    @property
    def rows_at_once(self) -> int:
        """Of a pass in which each row sets another node."""
        return max(1, min(ROWS_AT_ONCE, TOKENS_AT_ONCE // self.task.tokens))

    def states(self, name: str, state: int, memory: float | None, traversals: int) -> Passes:
        """Batches decomposed: those of `state` bytes that are kept once, the others each time."""
        kept, n = self.kept(state, memory), len(self.batches)
        # The one asked for last is there still.
        times = 1 if n - kept <= 1 else traversals
        found = Passes(name=name)
        for i, rows in enumerate(self.batches):
            once = _times(self.resumed(rows, 0), 1 + self.task.patched)
            again = 1 if i < kept else times
            found += _times(once, again)
            found += Passes(name="", encoded=again * self._decomposed(rows))
        return found

    def kept(self, state: int, memory: float | None) -> int:
        """Batches that are kept, of `state` bytes each."""
        room = KEPT if memory is None else memory * 1e9 / 4
        return int(min(room // max(state, 1), len(self.batches)))

    def _decomposed(self, rows: int) -> int:
        """Features encoded of clean prompts and patches; where both read the same, once."""
        paired = self.task.patched
        return rows * (self.task.tokens + (self.task.run if paired else 0)) * self.features


def _times(passes: Passes, n: int) -> Passes:
    return replace(passes, **{name: n * getattr(passes, name) for name in SUMMED})


def _parts(n: int, size: int) -> Iterator[int]:
    """Sizes of the pieces of `n` things, `size` at a time."""
    for i in range(ceil(n / size)):
        yield min(size, n - i * size)

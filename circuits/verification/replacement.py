"""Hold a replacement graph against interventions: what it predicts, and what they do.

Nodes: each is set to its reference alone, as its `effect` has it
(`circuits.discovery.node_changes`), in the model itself and with parts of it held
(`transcoders.interventions`). Where attention is frozen and MLPs are linear the effect is what
happens; the other modes say how much it matters that attention and features do react.

Edges: each source is taken away, and the target's pre-activation read. With attention and MLPs
frozen it falls by the edge's weight; with attention free, by what the source gives it past no other
feature in the model; with transcoders live, along all paths.

The scores of the graph: beside those of the same transcoders with what their features write dealt
anew among them. Tokens reach the output through attention and skip connections whatever features
write, so that a score is to be read against the control and not against 0.

The circuit as a set: as of any graph, with transcoders and errors as nodes
(`circuits.verification.faithfulness_curves`).

Axes: `nodes` of the graph, `edges` that are measured, `prompts`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.effects import node_effects
from circuits.attribution.node_effects import NodeEffects
from circuits.attribution.state import BatchState, each
from circuits.discovery.influence import influence_of
from circuits.discovery.node_changes import NodeChanges, changes_to
from circuits.discovery.ranking import Ranking
from circuits.discovery.replaced_prompts import ReplacedPrompt, ReplacedPrompts, by_transcoders
from circuits.edits.held_run import HeldRun, adding, rows_at_once, run_held
from circuits.graph import Edge, Node, rounded
from circuits.verification.estimator_agreement import (
    agreement,
    edge_agreement,
    node_agreement,
)
from hooked_qwen.progress import Report, counting
from hooked_qwen.sites import Site
from saes.evaluation.baselines import dealt_anew
from saes.evaluation.bootstrap import interval, resamples
from transcoders.interventions import THE_MODEL, Mode
from transcoders.replacement import ReplacementModel

LINEAR = "linear paths"
"What a replacement graph's effects are estimated by."
DEALT = "decoders dealt anew"
SCORES = ("replacement", "completeness")
NODE_MODES = (
    THE_MODEL,
    Mode(attention="frozen", mlps="linear"),
    Mode(attention="patterns", mlps="linear"),
    Mode(attention="free", mlps="linear"),
    Mode(attention="frozen", mlps="transcoders"),
    Mode(attention="free", mlps="transcoders"),
)
EDGE_MODES = (
    Mode(attention="free", mlps="frozen"),
    Mode(attention="frozen", mlps="frozen"),
    Mode(attention="patterns", mlps="frozen"),
    Mode(attention="frozen", mlps="transcoders"),
    THE_MODEL,
)
"The first is what `edges` of the record are held against."


@dataclass(frozen=True)
class Interventions:
    """What was predicted and what was measured, prompt by prompt."""

    predicted: Float[Tensor, "nodes prompts"]
    nodes: dict[Mode, Float[Tensor, "nodes prompts"]]
    edges: dict[Mode, Float[Tensor, "edges prompts"]]


def cut_of(analysis: Analysis, ranking: Ranking) -> tuple[Analysis, Ranking]:
    """An analysis by the dictionaries whose nodes its graph has, and the changed nodes in it."""
    if analysis.config.method == "replacement":
        return of_transcoders(analysis, ranking)
    return analysis, ranking


def of_transcoders(analysis: Analysis, ranking: Ranking) -> tuple[Analysis, Ranking]:
    """By the transcoders of the suite alone, as the graph was found; and what ablation may move.

    The errors of layers without a transcoder are no nodes where a circuit is a set: they stay as
    they are. Features that are off in a prompt and on in its patch are no nodes of a replacement
    graph, and yet ablation to the patch turns them on: they stand last, with an effect of 0.
    """
    analysis = by_transcoders(analysis)
    written = {str(site) for site in analysis.suite.writes}
    known = [name in written or name in analysis.suite for name in ranking.names]
    ranking = ranking.where(torch.tensor(known)[ranking.name])
    moving = NodeEffects.sum(each(analysis.states, lambda state: _moving(analysis, state)))
    listed = NodeEffects.listed(ranking.names, list(moving.inner()))
    others = listed.where(~torch.isin(listed.key, ranking.key))
    return analysis, NodeEffects.one_after_another([ranking, others])


def _moving(analysis: Analysis, state: BatchState) -> NodeEffects:
    """Every node whose clean and reference values differ, with an effect of 0."""
    flat = {site: torch.zeros_like(x) for site, x in state.values.items()}
    return node_effects(analysis, state, flat)


def measure(
    analysis: Analysis, nodes: Sequence[Node], edges: Sequence[Edge], report: Report
) -> Interventions:
    """Every node set to its reference, every edge's source taken away, in every mode."""
    prompts = ReplacedPrompts(analysis)
    tick = counting(report, "interventions", len(prompts) * (len(NODE_MODES) + len(EDGE_MODES)))
    predicted: list[Tensor] = []
    of_nodes: dict[Mode, list[Tensor]] = {mode: [] for mode in NODE_MODES}
    of_edges: dict[Mode, list[Tensor]] = {mode: [] for mode in EDGE_MODES}
    for opened in prompts:
        here = _Prompt(analysis, prompts.names, opened)
        changes = changes_to(opened.model, _patched(prompts, opened))
        predicted.append(here.predicted(changes, nodes))
        for mode, found in of_nodes.items():
            found.append(here.measured(changes, nodes, mode))
            tick(1)
        gone = changes_to(opened.model, None)
        for mode, found in of_edges.items():
            found.append(here.edges(gone, edges, mode))
            tick(1)

    def together(found: dict[Mode, list[Tensor]]) -> dict[Mode, Tensor]:
        return {mode: torch.stack(parts, 1) for mode, parts in found.items()}

    return Interventions(torch.stack(predicted, 1), together(of_nodes), together(of_edges))


def _patched(prompts: ReplacedPrompts, opened: ReplacedPrompt) -> ReplacementModel | None:
    batch = prompts.analysis.prompts.patch
    if prompts.analysis.config.reference != "patch" or batch is None:
        return None
    return prompts.replaced(batch, opened.number)


class _Prompt:
    """One prompt: its sources by node, and passes in which they change."""

    def __init__(self, analysis: Analysis, names: Sequence[str], opened: ReplacedPrompt) -> None:
        self.analysis, self.opened, self._names = analysis, opened, names

    def sources(self, node: Node) -> Int[Tensor, " some"]:
        """Those that are a node in this prompt: none of a feature that is off."""
        key = NodeEffects.listed(self._names, [(node, 0.0)]).key.to(self.opened.key.device)
        return (self.opened.key == key).nonzero().squeeze(-1)

    def predicted(self, changes: NodeChanges, nodes: Sequence[Node]) -> Float[Tensor, " nodes"]:
        """What changing each node does by all linear paths: its `effect` in this prompt."""
        model, outputs = self.opened.model, self.opened.outputs
        effects = changes.effects(model.totals(outputs.together)).double()
        return torch.stack([effects[self.sources(node)].sum() for node in nodes]).cpu()

    def measured(
        self, changes: NodeChanges, nodes: Sequence[Node], mode: Mode
    ) -> Float[Tensor, " nodes"]:
        """What changing each node alone does to the metric."""
        found = torch.zeros(len(nodes), dtype=torch.float64)
        for part, run in self._passes(changes, nodes, mode, ()):
            found[part] = run.change
        return found

    def edges(
        self, changes: NodeChanges, edges: Sequence[Edge], mode: Mode
    ) -> Float[Tensor, " edges"]:
        """What each target loses where the source is taken away."""
        found = torch.zeros(len(edges), dtype=torch.float64)
        nodes = list(dict.fromkeys(source for source, _ in edges))
        readers = {t: self._reader(t) for t in dict.fromkeys(target for _, target in edges)}
        reads = {site for reader in readers.values() for site in reader.sites}
        for part, run in self._passes(changes, nodes, mode, reads):
            row = {node: i for i, node in enumerate(nodes[part], 1)}
            read = {t: reader.values(run) for t, reader in readers.items()}
            for i, (source, target) in enumerate(edges):
                if source in row:
                    found[i] = float(read[target][0] - read[target][row[source]])
        return found

    def _passes(
        self, changes: NodeChanges, nodes: Sequence[Node], mode: Mode, reads: Iterable[Site]
    ) -> Iterator[tuple[slice, HeldRun]]:
        """Some of the nodes at a time, each changed in a row of its own."""
        number, sources = self.opened.number, [self.sources(node) for node in nodes]
        size = rows_at_once(self.analysis, number)
        for start in range(0, len(nodes), size):
            part = slice(start, start + size)
            edits = adding(self.analysis, changes.written(sources[part]))
            rows = 1 + len(sources[part])
            yield part, run_held(self.analysis, number, rows, mode, edits, reads=reads)

    def _reader(self, target: Node) -> "_Feature | _Output":
        if target.kind == "feature":
            return _Feature(self.opened.model, self.sources(target))
        outputs = [output.node for output in self.opened.outputs.outputs]
        ids = list(dict.fromkeys(self.analysis.prompts.answer_ids[0]))
        return _Output(ids[outputs.index(target)] if len(outputs) > 1 else None)


@dataclass(frozen=True, eq=False)
class _Feature:
    """A feature as a target."""

    model: ReplacementModel
    sources: Int[Tensor, " some"]
    "where it is on; nowhere, in some prompts of a set"

    @property
    def sites(self) -> list[Site]:
        layers = self.model.read_layer(self.sources).unique().tolist()
        return [Site("mlp_in", layer) for layer in layers]

    def values(self, run: HeldRun) -> Float[Tensor, " rows"]:
        """Its pre-activation in every row, added up over positions, without its own bias."""
        found = run.metric.new_zeros(len(run.metric), dtype=torch.float64)
        if not len(self.sources):
            return found
        targets = self.model.features(self.sources)
        x = run.seen[targets.site][:, targets.position].double()
        return (x * targets.vectors.double()).sum((1, 2))


@dataclass(frozen=True)
class _Output:
    """An output as a target: the metric, or the logit of one of several tokens."""

    token: int | None
    sites: tuple[Site, ...] = ()

    def values(self, run: HeldRun) -> Float[Tensor, " rows"]:
        """Its value in every row; a token's logit less the vocabulary's mean."""
        if self.token is None:
            return run.metric.double()
        logits = run.logits.double()
        return logits[:, self.token] - logits.mean(-1)


def scores(
    analysis: Analysis, graph: nx.DiGraph, *, seed: int, report: Report
) -> dict[str, dict[str, Any]]:
    """Replacement and completeness score of a graph, beside those of the control.

    Means over prompts; of the control with their 95 % intervals. Both trace as many features.
    """
    prompts = ReplacedPrompts(analysis.by(dealt_anew(analysis.suite, seed=seed)))
    found, tick = [], counting(report, DEALT, len(prompts))
    for opened in prompts:
        found.append(
            influence_of(
                opened.model,
                opened.outputs,
                targets=analysis.config.targets,
                at_once=prompts.at_once,
            )
        )
        tick(1)
    values = torch.tensor([[one.replacement, one.completeness] for one in found]).double()
    drawn = resamples(len(values), seed=seed) @ values
    return {
        "graph": {name: graph.graph[f"{name}_score"] for name in SCORES},
        DEALT: {name: rounded(float(x)) for name, x in zip(SCORES, values.mean(0), strict=True)}
        | {"intervals": {name: interval(drawn[:, i]) for i, name in enumerate(SCORES)}},
    }


def agreements(
    graph: nx.DiGraph,
    nodes: Sequence[Node],
    edges: Sequence[Edge],
    strongest: int,
    found: Interventions,
) -> dict[str, Any]:
    """What the record says of nodes and edges: against the model, and mode by mode."""
    weights = torch.tensor([[graph.edges[e]["weight"]] for e in edges], dtype=torch.float64)
    inner = [i for i, node in enumerate(nodes) if node.kind != "token"]
    direct = found.edges[EDGE_MODES[0]]
    return {
        "nodes": node_agreement(nodes, found.predicted, found.nodes[THE_MODEL]),
        "edges": edge_agreement(graph, edges, strongest, direct),
        "node_modes": [
            _mode(mode, agreement(found.predicted[inner], exact[inner]), len(inner))
            for mode, exact in found.nodes.items()
        ],
        "edge_modes": [
            _mode(mode, agreement(weights, exact), len(edges))
            for mode, exact in found.edges.items()
        ],
    }


def _mode(mode: Mode, figures: dict[str, Any], n: int) -> dict[str, Any]:
    return {"attention": mode.attention, "mlps": mode.mlps, "n": n, **figures}

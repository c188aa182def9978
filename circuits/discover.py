"""From prompts to a sparse feature graph: node effects, the strongest of them, their edges."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import networkx as nx
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation import all_nodes, exact_effects, token_nodes
from circuits.attribution.edges import EdgeWeights, edge_weights
from circuits.attribution.effects import (
    Estimator,
    Gradients,
    SiteEffects,
    gradients_along_path,
    gradients_at_clean,
    node_effects,
)
from circuits.attribution.states import (
    BatchState,
    Means,
    Reference,
    batches,
    mean_over,
)
from circuits.graph import Node, rounded
from circuits.metric import Metric, logit_difference
from circuits.prompts import EncodedPrompts, Positions
from circuits.report import Report, silent
from hooked_qwen.sites import Site
from saes.suite import Suite


@dataclass(frozen=True, kw_only=True)
class DiscoverConfig:
    """What is estimated, and what is kept of it."""

    estimator: Estimator = "ig"
    nodes: int = 100
    "features and errors kept, the strongest by the size of their mean effect"
    positions: Positions = "keep"
    reference: Reference = "patch"
    steps: int = 10
    "points on the path of integrated gradients"
    edge_threshold: float = 0.01
    "edges weaker than this share of the strongest feature's or error's effect are left out"
    batch_size: int = 32
    "prompts run together; changes no result beyond rounding"

    def __post_init__(self) -> None:
        for name in ("nodes", "steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")


Ranking = list[tuple[Node, float]]


@dataclass(frozen=True)
class Discovery:
    """A graph, and the mean effect of every node that moves, strongest first."""

    graph: nx.DiGraph
    ranking: Ranking


def discover(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    *,
    config: DiscoverConfig,
    report: Report = silent,
) -> Discovery:
    """Estimate every node's effect on the logit difference, keep the strongest, weigh their edges.

    Effects and weights are means over the prompts; thresholds apply to the means.
    """
    metric = logit_difference(prompts.answer_ids, prompts.wrong_ids)
    means = reference_means(model, suite, prompts, config)
    ranking, gradients = rank_nodes(
        model, suite, prompts, metric, config=config, means=means, report=report
    )
    inputs = [(n, e) for n, e in ranking if n.kind == "token"]
    kept = [(n, e) for n, e in ranking if n.kind != "token"][: config.nodes]
    weights: EdgeWeights = {}
    graph = nx.DiGraph()
    for node, effect in [*kept, *inputs]:
        graph.add_node(node, kind=node.kind, effect=effect, exact=None, activation=0.0, label="")
    done = 0
    summary = _Summary()
    for state, g in zip(states_of(model, suite, prompts, config, means), gradients, strict=True):
        summary.add(state, metric)
        _add_activations(graph, state, len(prompts))
        found = edge_weights(model, suite, state, g, metric, [n for n, _ in [*kept, *inputs]])
        for pair, weight in found.items():
            weights[pair] = weights.get(pair, 0.0) + weight / len(prompts)
        done += len(state.rows)
        report("edges", done, len(prompts))
    _add_output(graph, prompts, summary)
    _add_edges(graph, weights, config)
    _add_tokens(graph, prompts)
    graph.graph.update(_meta(model, suite, prompts, config, summary, weights, graph))
    return Discovery(graph, ranking)


def rank_nodes(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    metric: Metric,
    *,
    config: DiscoverConfig,
    means: Means | None,
    report: Report = silent,
) -> tuple[Ranking, list[Gradients]]:
    """Mean effect of every node that moves, strongest first, and each batch's gradients."""
    totals: dict[Node, float] = {}
    gradients: list[Gradients] = []
    done = 0
    for state in states_of(model, suite, prompts, config, means):
        if config.estimator == "ig":
            g = gradients_along_path(model, suite, state, metric, steps=config.steps)
        else:
            g = gradients_at_clean(model, suite, state, metric)
        gradients.append(g)
        nodes = all_nodes(suite, state, positions=config.positions)
        nodes += token_nodes(state, positions=config.positions)
        if config.estimator == "exact":
            effects = _exact(model, suite, state, metric, nodes, report)
        else:
            found = node_effects(suite, state, g, positions=config.positions)
            effects = [_pick(found, node) for node in nodes]
        for node, effect in zip(nodes, effects, strict=True):
            totals[node] = totals.get(node, 0.0) + effect
        done += len(state.rows)
        report("node effects", done, len(prompts))
    ranking = [(node, total / len(prompts)) for node, total in totals.items()]
    return sorted(ranking, key=lambda pair: (-abs(pair[1]), str(pair[0]))), gradients


def reference_means(
    model: TransformerBridge, suite: Suite, prompts: EncodedPrompts, config: DiscoverConfig
) -> Means | None:
    """Means over the clean prompts where they are the reference."""
    if config.reference != "mean":
        return None
    return mean_over(
        model,
        suite,
        prompts.clean,
        by_position=config.positions == "keep",
        batch_size=config.batch_size,
    )


def states_of(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    config: DiscoverConfig,
    means: Means | None,
) -> Iterator[BatchState]:
    """The prompt set in batches, decomposed with the references that `config` names."""
    return batches(
        model,
        suite,
        prompts,
        reference=config.reference,
        batch_size=config.batch_size,
        means=means,
    )


def _exact(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    metric: Metric,
    nodes: Sequence[Node],
    report: Report,
) -> list[float]:
    done = 0

    def tick(n: int) -> None:
        nonlocal done
        done += n
        report("exact effects of a batch", done, len(nodes))

    return exact_effects(model, suite, state, metric, nodes, report=tick).sum(1).tolist()


def _pick(effects: dict[Site, SiteEffects], node: Node) -> float:
    site, at = effects[Site.parse(node.site)], node.position or 0
    if node.feature == "error":
        return float(site.error[at])
    return float(site.feature[at, 0 if node.kind == "token" else int(node.feature)])


class _Summary:
    """Mean metric on the clean and on the patch prompts."""

    def __init__(self) -> None:
        self.n, self.clean, self.patch, self.right = 0, 0.0, 0.0, 0
        self.has_patch = True

    def add(self, state: BatchState, metric: Metric) -> None:
        clean = metric(state.logits, state.rows)
        self.n += len(clean)
        self.clean += float(clean.double().sum())
        self.right += int((clean > 0).sum())
        if state.patch_logits is None:
            self.has_patch = False
        else:
            self.patch += float(metric(state.patch_logits, state.rows).double().sum())

    @property
    def clean_mean(self) -> float:
        return self.clean / self.n

    @property
    def patch_mean(self) -> float | None:
        return self.patch / self.n if self.has_patch else None


def _add_activations(graph: nx.DiGraph, state: BatchState, n_prompts: int) -> None:
    """Add to each feature its mean clean activation (largest over positions when summed)."""
    for node, data in graph.nodes(data=True):
        if data["kind"] == "token":
            data["activation"] = None
            continue
        nodes = state.sites[Site.parse(node.site)]
        if node.feature == "error":
            value = (nodes.error.norm(dim=-1) * state.clean.mask).double()
        else:
            value = (nodes.f[..., int(node.feature)] * state.clean.mask).double()
        here = value.amax(1) if node.position is None else value[:, node.position]
        data["activation"] += float(here.sum()) / n_prompts


def output_node(prompts: EncodedPrompts) -> Node:
    """The graph's output: the answer's logit, named by the answer where all prompts share one."""
    answers = {p.answer for p in prompts.prompts}
    text = next(iter(answers))[0] if len(answers) == 1 else "answer"
    return Node("logit", text)


def _add_output(graph: nx.DiGraph, prompts: EncodedPrompts, summary: _Summary) -> None:
    total = None if summary.patch_mean is None else summary.patch_mean - summary.clean_mean
    node = output_node(prompts)
    graph.add_node(
        node,
        kind="logit",
        effect=total,
        exact=total,
        activation=summary.clean_mean,
        label="answer − wrong" if node.feature == "answer" else f"{node.feature} − wrong",
    )


def _add_edges(graph: nx.DiGraph, weights: EdgeWeights, config: DiscoverConfig) -> None:
    output = next(n for n in graph if n.site == "logit")
    effects = [abs(graph.nodes[n]["effect"]) for n in graph if n.kind in ("feature", "error")]
    floor = config.edge_threshold * max(effects, default=0.0)
    for (source, target), weight in weights.items():
        if abs(weight) >= floor and weight:
            graph.add_edge(source, output if target.site == "logit" else target, weight=weight)


def _add_tokens(graph: nx.DiGraph, prompts: EncodedPrompts) -> None:
    for node, data in graph.nodes(data=True):
        columns = prompts.columns
        data["token"] = columns[node.position] if columns and node.position is not None else None
        if data["kind"] == "token":
            data["label"] = data["token"] or "tokens"
        elif data["kind"] == "error":
            data["label"] = f"error of {node.site}"


def _meta(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    config: DiscoverConfig,
    summary: _Summary,
    weights: EdgeWeights,
    graph: nx.DiGraph,
) -> dict[str, Any]:
    return {
        "method": "sparse-feature",
        "metric": "logit difference",
        "edge_units": "metric",
        **asdict(config),
        "n_prompts": len(prompts),
        "columns": list(prompts.columns)
        if prompts.columns and config.positions == "keep"
        else None,
        "clean_metric": rounded(summary.clean_mean),
        "patch_metric": rounded(summary.patch_mean),
        "accuracy": rounded(summary.right / summary.n),
        "edges_computed": len(weights),
        "edges_kept": graph.number_of_edges(),
        "model": {
            "name": model.cfg.model_name,
            "architecture": model.cfg.architecture,
            "layers": model.cfg.n_layers,
            "d_model": model.cfg.d_model,
        },
        "dictionaries": suite.describe(),
    }

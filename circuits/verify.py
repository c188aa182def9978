"""Hold a discovered graph against ablation: each node's effect, and the circuit as a set.

Beside every row for the circuit stand its controls: random nodes and random features of the same
number, the single coordinates of the same tensors ("neurons"), and dictionaries that were never
trained, all ranked by the same estimator.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.ablation import exact_effects
from circuits.attribution.states import BatchState, Means, mean_over
from circuits.faithfulness import Curve, Ends, To, by_site, curve, ends, mean_curve
from circuits.graph import Node, ordered, rounded
from circuits.metric import Metric, logit_difference
from circuits.prompts import EncodedPrompts
from circuits.ranking import DiscoverConfig, Ranking, rank_nodes, reference_means, states_of
from circuits.report import Report, silent
from hooked_qwen.sites import Site
from saes.controls import neurons, untrained
from saes.suite import Suite

SCHEMA = "verification/1"
HEADLINE = 100
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """What ablated nodes are set to, and how many random controls are drawn."""

    to: To = "mean"
    draws: int = 3
    "random circuits averaged in each random control"
    seed: int = 0


def verify(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    graph: nx.DiGraph,
    ranking: Ranking,
    *,
    discovered: DiscoverConfig,
    config: VerifyConfig,
    report: Report = silent,
) -> dict[str, Any]:
    """Write each node's exact effect into `graph` and return the record of `verification.json`."""
    metric = logit_difference(prompts.answer_ids, prompts.wrong_ids)
    means = reference_means(model, suite, prompts, discovered)
    states = list(states_of(model, suite, prompts, discovered, means))
    nodes = [n for n in ordered(graph) if n.kind != "logit"]
    exact = _exact(model, suite, states, metric, nodes, report)
    for node, effects in zip(nodes, exact, strict=True):
        graph.nodes[node]["exact"] = float(effects.mean())
    agreement = _agreement(graph, nodes, exact)
    curves = _curves(model, suite, prompts, states, metric, ranking, discovered, config, report)
    return {
        "schema": SCHEMA,
        "estimator": discovered.estimator,
        "nodes": agreement,
        "curves": curves,
    }


def _exact(
    model: TransformerBridge,
    suite: Suite,
    states: Sequence[BatchState],
    metric: Metric,
    nodes: Sequence[Node],
    report: Report,
) -> Float[Tensor, "nodes prompts"]:
    done, total = 0, len(nodes) * len(states)

    def tick(n: int) -> None:
        nonlocal done
        done += n
        report("exact effects", done, total)

    parts = [exact_effects(model, suite, s, metric, nodes, report=tick) for s in states]
    return torch.cat(parts, 1)


def _agreement(
    graph: nx.DiGraph, nodes: Sequence[Node], exact: Float[Tensor, "nodes prompts"]
) -> dict[str, Any]:
    estimates = torch.tensor([graph.nodes[n]["effect"] for n in nodes], dtype=torch.float64)
    sites = list(dict.fromkeys(n.site for n in sorted(nodes, key=lambda n: Site.parse(n.site))))
    of_site = {site: [i for i, n in enumerate(nodes) if n.site == site] for site in sites}
    return {
        "n": len(nodes),
        "n_prompts": exact.shape[1],
        **agreement(estimates, exact.mean(1)),
        "spearman_interval": _spearman_interval(estimates, exact),
        "by_site": {
            site: {"n": len(at), **agreement(estimates[at], exact[at].mean(1))}
            for site, at in of_site.items()
        },
        "points": [
            {"id": str(n), "estimate": rounded(float(e)), "exact": rounded(float(x))}
            for n, e, x in zip(nodes, estimates, exact.mean(1), strict=True)
        ],
    }


def agreement(
    estimate: Float[Tensor, " nodes"], exact: Float[Tensor, " nodes"]
) -> dict[str, float | None]:
    """Spearman's rank correlation, slope of exact on estimate through zero, share of equal signs.

    Rank correlation is None for fewer than three nodes; nodes whose effects are both zero agree.
    """
    squares = float(estimate.square().sum())
    return {
        "spearman": _spearman(estimate, exact),
        "slope": rounded(float((estimate * exact).sum()) / squares) if squares else None,
        "sign_agreement": rounded(float((estimate.sign() == exact.sign()).double().mean())),
    }


def _spearman(estimate: Tensor, exact: Tensor) -> float | None:
    if len(estimate) < 3 or estimate.unique().numel() < 2 or exact.unique().numel() < 2:
        return None
    return rounded(float(np.corrcoef(stats.rankdata(estimate), stats.rankdata(exact))[0, 1]))


def _spearman_interval(
    estimate: Float[Tensor, " nodes"], exact: Float[Tensor, "nodes prompts"]
) -> list[float] | None:
    """95 % bootstrap interval over the prompts on which the exact effects were measured."""
    generator = torch.Generator().manual_seed(0)
    n = exact.shape[1]
    draws = [torch.randint(n, (n,), generator=generator) for _ in range(200)]
    values = [_spearman(estimate, exact[:, draw].mean(1)) for draw in draws]
    known = torch.tensor([v for v in values if v is not None], dtype=torch.float64)
    if not len(known):
        return None
    return known.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()


@dataclass(frozen=True)
class _Setting:
    """What all curves of one verification share."""

    model: TransformerBridge
    metric: Metric
    n_positions: int
    to: To
    discovered: DiscoverConfig
    prompts: EncodedPrompts


def _curves(
    model: TransformerBridge,
    suite: Suite,
    prompts: EncodedPrompts,
    states: Sequence[BatchState],
    metric: Metric,
    ranking: Ranking,
    discovered: DiscoverConfig,
    config: VerifyConfig,
    report: Report,
) -> dict[str, Any]:
    n_positions = prompts.clean.tokens.shape[1] if discovered.positions == "keep" else 1
    setting = _Setting(model, metric, n_positions, config.to, discovered, prompts)
    means = _ablation_means(setting, suite)
    scale = ends(model, suite, states, metric, config.to, means)
    nodes = [n for n, _ in ranking if n.kind != "token"]
    sizes = [s for s in SIZES if s < len(nodes)] + [len(nodes)]
    plans = _plans(nodes, sizes, config)
    rows: dict[str, Curve] = {}
    total = len(plans) + 3
    for name, draws in plans.items():
        curves = [_curve(setting, suite, states, circuits, scale, means) for circuits in draws]
        rows[name] = mean_curve(curves)
        report("faithfulness", len(rows), total)
    controls = {"neurons": neurons(suite), "untrained dictionaries": untrained(suite)}
    for name, control in controls.items():
        rows |= _control(setting, name, control, sizes, scale)
        report("faithfulness", len(rows), total)
    return {
        "baseline": config.to,
        "full": rounded(float(scale.full.mean())),
        "empty": rounded(float(scale.empty.mean())),
        "nodes_that_move": len(nodes),
        "sizes": sizes,
        "margin": _margin(rows, sizes),
        "rows": {
            name: {k: [rounded(v) for v in values] for k, values in asdict(row).items()}
            for name, row in rows.items()
        },
    }


def _margin(rows: Mapping[str, Curve], sizes: Sequence[int]) -> dict[str, Any]:
    """By how much the circuit is more faithful than as many random nodes, at about a hundred."""
    at = min(range(len(sizes)), key=lambda i: abs(sizes[i] - HEADLINE))
    circuit, chance = (rows[name].faithfulness[at] for name in ("circuit", "random nodes"))
    return {
        "size": sizes[at],
        "circuit": rounded(circuit),
        "random nodes": rounded(chance),
        "difference": rounded(circuit - chance),
    }


def _ablation_means(setting: _Setting, suite: Suite) -> Means | None:
    """Means over the patch prompts (the clean ones where there are none)."""
    if setting.to != "mean":
        return None
    prompts = setting.prompts
    return mean_over(
        setting.model,
        suite,
        prompts.patch or prompts.clean,
        by_position=setting.discovered.positions == "keep",
        batch_size=setting.discovered.batch_size,
    )


def _plans(
    nodes: Sequence[Node], sizes: Sequence[int], config: VerifyConfig
) -> dict[str, list[list[list[Node]]]]:
    """For each row, the circuits of each size, once for each random draw."""
    features = [n for n in nodes if n.kind == "feature"]
    strongest = [list(nodes[:size]) for size in sizes]
    draws = range(config.seed, config.seed + config.draws)
    return {
        "circuit": [strongest],
        "circuit without errors": [[features[:size] for size in sizes]],
        "random nodes, same sites": [
            [_matched(circuit, nodes, seed) for circuit in strongest] for seed in draws
        ],
        "random nodes": [[_drawn(nodes, size, seed) for size in sizes] for seed in draws],
        "random features": [[_drawn(features, size, seed) for size in sizes] for seed in draws],
    }


def _drawn(nodes: Sequence[Node], size: int, seed: int) -> list[Node]:
    return random.Random(seed).sample(list(nodes), min(size, len(nodes)))


def _matched(circuit: Sequence[Node], nodes: Sequence[Node], seed: int) -> list[Node]:
    """Random nodes, as many features and as many errors at each site as the circuit has."""
    pool, generator = by_site(nodes), random.Random(seed)
    return [
        node
        for group, members in by_site(circuit).items()
        for node in generator.sample(pool[group], len(members))
    ]


def _curve(
    setting: _Setting,
    suite: Suite,
    states: Sequence[BatchState],
    circuits: Sequence[Sequence[Node]],
    scale: Ends,
    means: Means | None,
) -> Curve:
    return curve(
        setting.model,
        suite,
        states,
        setting.metric,
        circuits,
        scale,
        n_positions=setting.n_positions,
        to=setting.to,
        means=means,
    )


def _control(
    setting: _Setting, name: str, suite: Suite, sizes: Sequence[int], scale: Ends
) -> dict[str, Curve]:
    """Curves of another set of dictionaries at the same sites, found the same way.

    Where they have errors a second row leaves those out: dictionaries that explain nothing have
    errors that carry everything.

    Both ends of the scale are the same: with everything ablated a site holds its mean whatever
    it was decomposed into.
    """
    d, prompts = setting.discovered, setting.prompts
    means = reference_means(setting.model, suite, prompts, d)
    ranking, _ = rank_nodes(setting.model, suite, prompts, setting.metric, config=d, means=means)
    states = list(states_of(setting.model, suite, prompts, d, means))
    nodes = [n for n, _ in ranking if n.kind != "token"]
    features = [n for n in nodes if n.kind == "feature"]
    pools = {name: nodes}
    if len(features) < len(nodes):
        pools[f"{name}, no errors"] = features
    ablated = _ablation_means(setting, suite)
    return {
        row: _curve(setting, suite, states, [pool[:size] for size in sizes], scale, ablated)
        for row, pool in pools.items()
    }

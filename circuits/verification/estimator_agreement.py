"""How well estimates agree with what was measured, over nodes and over edges."""

import math
import random
from collections.abc import Sequence
from typing import Any

import networkx as nx
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from circuits.graph import Edge, Node, rounded
from hooked_qwen.sites import forward_order
from saes.evaluation.bootstrap import Interval, interval, resamples

LEAST = {
    "spearman": -1.0,
    "pearson": -1.0,
    "sign_agreement": 0.0,
    "weighted_sign_agreement": 0.0,
}
"The least that each figure of agreement can be; the most is 1."
STRONGEST, DRAWN = 50, 50
"Edges measured: the strongest of the graph, and as many others at random."


def node_agreement(
    nodes: Sequence[Node],
    estimates: Float[Tensor, "nodes prompts"],
    exact: Float[Tensor, "nodes prompts"],
) -> dict[str, Any]:
    """Estimated against exact effects, of all but the tokens and by site, with every point.

    Tokens stand apart, under `tokens`: one of them can outweigh all features together.
    """
    inner = [i for i, n in enumerate(nodes) if n.kind != "token"]
    tokens = [i for i, n in enumerate(nodes) if n.kind == "token"]
    of_site: dict[str, list[int]] = {}
    for i in sorted(inner, key=lambda i: forward_order(nodes[i].site)):
        of_site.setdefault(nodes[i].site, []).append(i)

    def part(at: Sequence[int]) -> dict[str, Any]:
        return {"n": len(at), **agreement(estimates[at], exact[at])}

    return {
        "n_prompts": exact.shape[1],
        **part(inner),
        "tokens": part(tokens),
        "by_site": {site: part(at) for site, at in of_site.items()},
        "points": [
            {"id": str(nodes[i]), "estimate": rounded(float(e)), "exact": rounded(float(x))}
            for i, e, x in zip(inner, estimates[inner].mean(1), exact[inner].mean(1), strict=True)
        ],
    }


def edges_to_measure(graph: nx.DiGraph, *, seed: int) -> tuple[list[Edge], int]:
    """The strongest edges, then some of the others at random; and how many are the strongest."""
    ranked = sorted(
        graph.edges, key=lambda e: (-abs(graph.edges[e]["weight"]), str(e[0]), str(e[1]))
    )
    top, rest = ranked[:STRONGEST], ranked[STRONGEST:]
    return [*top, *random.Random(seed).sample(rest, min(DRAWN, len(rest)))], len(top)


def edge_agreement(
    graph: nx.DiGraph, edges: Sequence[Edge], strongest: int, exact: Float[Tensor, "edges prompts"]
) -> dict[str, Any]:
    """Weights against exact edges: the first `strongest` of `edges`, the others, and all."""
    weights = torch.tensor([graph.edges[e]["weight"] for e in edges], dtype=torch.float64)
    parts = {"strongest": slice(strongest), "random": slice(strongest, None), "all": slice(None)}
    return {
        **{
            name: {"n": len(weights[part]), **agreement(weights[part, None], exact[part])}
            for name, part in parts.items()
            if len(weights[part])
        },
        "points": [
            {"source": str(s), "target": str(t), "estimate": rounded(w), "exact": rounded(x)}
            for (s, t), w, x in zip(edges, weights.tolist(), exact.mean(1).tolist(), strict=True)
        ],
    }


def agreement(
    estimate: Float[Tensor, "nodes #prompts"], exact: Float[Tensor, "nodes prompts"]
) -> dict[str, Any]:
    """Correlations of ranks and values, slope of exact on estimate through zero, equal signs.

    `sign_agreement` is the share of nodes whose signs are equal, `weighted_sign_agreement` their
    share of the exact effects' size. Of the means over prompts, each with its 95 % bootstrap
    interval; an estimate that is known in the mean only (one column) is held. Correlations are None
    for fewer than three nodes. Where one of the two is exactly zero there are no signs to compare:
    `zeros` counts those, and the shares are of the others, None if there are none.

    The intervals of correlations and sign shares are 1.96 standard errors to either side of the
    value. Percentiles would miss it: draws lack some of the prompts on both sides of the comparison
    (ranks agree more) or on one (less), and the sign of an effect near zero changes in many draws.
    """
    exact, estimate = exact.double(), estimate.double().expand_as(exact)
    shares = resamples(exact.shape[1]).T
    means = estimate.mean(1, keepdim=True), exact.mean(1, keepdim=True)
    found, draws = _figures(*means), _figures(estimate @ shares, exact @ shares)
    values = {name: float(value[0]) for name, value in found.items()}
    return {name: rounded(v) if math.isfinite(v) else None for name, v in values.items()} | {
        "zeros": int(((means[0] == 0) | (means[1] == 0)).sum()),
        "intervals": {
            "slope": interval(_known(draws["slope"])),
            **{
                name: _around(values[name], _known(draws[name]), least=least)
                for name, least in LEAST.items()
            },
        },
    }


def _known(draws: Float[Tensor, " draws"]) -> Float[Tensor, " known"]:
    """The draws that have a value: none, unless most of them do."""
    known = draws[draws.isfinite()]
    return known if 2 * len(known) > len(draws) else known[:0]


def _around(value: float, draws: Float[Tensor, " draws"], *, least: float) -> Interval:
    """1.96 standard errors to either side of a value between `least` and 1."""
    reach = 1.96 * float(draws.std()) if len(draws) else math.nan
    if not math.isfinite(value + reach):
        return None
    return [max(least, value - reach), min(1.0, value + reach)]


def _figures(
    estimate: Float[Tensor, "nodes draws"], exact: Float[Tensor, "nodes draws"]
) -> dict[str, Float[Tensor, " draws"]]:
    """Each figure in every draw; NaN where there is none."""
    signed = (estimate != 0) & (exact != 0)
    same = signed & (estimate.sign() == exact.sign())
    size = exact.abs() * signed
    return {
        "spearman": _spearman(estimate, exact),
        "pearson": _correlation(estimate, exact),
        "slope": (estimate * exact).sum(0) / estimate.square().sum(0),
        "sign_agreement": same.double().sum(0) / signed.double().sum(0),
        "weighted_sign_agreement": (size * same).sum(0) / size.sum(0),
    }


def _spearman(
    estimate: Float[Tensor, "nodes draws"], exact: Float[Tensor, "nodes draws"]
) -> Float[Tensor, " draws"]:
    ranks = (torch.from_numpy(stats.rankdata(x, axis=0)) for x in (estimate, exact))
    return _correlation(*ranks)


def _correlation(
    a: Float[Tensor, "nodes draws"], b: Float[Tensor, "nodes draws"]
) -> Float[Tensor, " draws"]:
    if len(a) < 3:
        return torch.full(a.shape[1:], math.nan, dtype=torch.float64)
    a, b = a - a.mean(0), b - b.mean(0)
    return (a * b).sum(0) / (a.norm(dim=0) * b.norm(dim=0))

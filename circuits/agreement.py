"""How well estimates agree with what was measured, over nodes and over edges."""

import random
from collections.abc import Sequence
from typing import Any

import networkx as nx
import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from circuits.graph import Node, rounded
from hooked_qwen.sites import Site

Edge = tuple[Node, Node]
STRONGEST, DRAWN = 50, 50
"Edges measured: the strongest of the graph, and as many others at random."


def node_agreement(
    graph: nx.DiGraph, nodes: Sequence[Node], exact: Float[Tensor, "nodes prompts"]
) -> dict[str, Any]:
    """Estimated against exact effects, in all and by site, with every point."""
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


def edges_to_measure(graph: nx.DiGraph, *, seed: int) -> tuple[list[Edge], int]:
    """The strongest edges, then some of the others at random; and how many are the strongest."""
    ranked = sorted(
        graph.edges, key=lambda e: (-abs(graph.edges[e]["weight"]), str(e[0]), str(e[1]))
    )
    top, rest = ranked[:STRONGEST], ranked[STRONGEST:]
    return [*top, *random.Random(seed).sample(rest, min(DRAWN, len(rest)))], len(top)


def edge_agreement(
    graph: nx.DiGraph, edges: Sequence[Edge], strongest: int, exact: Float[Tensor, " edges"]
) -> dict[str, Any]:
    """Weights against exact edges: the first `strongest` of `edges`, the others, and all."""
    weights = torch.tensor([graph.edges[e]["weight"] for e in edges], dtype=torch.float64)
    parts = {"strongest": slice(strongest), "random": slice(strongest, None), "all": slice(None)}
    return {
        **{
            name: {"n": len(weights[part]), **agreement(weights[part], exact[part])}
            for name, part in parts.items()
            if len(weights[part])
        },
        "points": [
            {"source": str(s), "target": str(t), "estimate": rounded(w), "exact": rounded(x)}
            for (s, t), w, x in zip(edges, weights.tolist(), exact.tolist(), strict=True)
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

"""Node effects by gradient: what moving each node to its reference would do to the metric.

    patching   IE_i ~ (a'_i - a_i) * dm/da_i                        gradient at the clean value
    ig         IE_i ~ (a'_i - a_i) * mean over t of dm/da_i         at a + t (a' - a)
    ig-inputs  the same mean, as the embeddings move and every node follows
    relp       patching, the gradient taken by `hooked_qwen.relevance`'s rules

The site's tensor is the sum of what its nodes write, so the gradient of a feature is the site's
gradient times the feature's decoder row, and one backward pass serves every feature of a site.
Both are first order in the move; `circuits.ablation.exact_effects` measures the same effects
exactly.

Units are those of the metric; positive means that the move raises it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.edges import node_change
from circuits.attribution.state import EMBED, BatchState
from circuits.graph import Node
from circuits.metrics.metric import Metric, SiteMetric, metric_at, reaches, reading
from circuits.prompts import Positions
from hooked_qwen.forward import (
    BlockArguments,
    finish,
    is_watched,
    last_logits,
    mlp_half,
    resume,
)
from hooked_qwen.hooks import Edit, capture, intervene
from hooked_qwen.sites import Site
from saes.suite import Suite

Gradients = dict[Site, Float[Tensor, "batch pos d_model"]]
Estimator = Literal["patching", "ig", "ig-inputs", "relp", "exact"]
TOKENS_AT_ONCE = 1024


@dataclass(frozen=True)
class SiteEffects:
    """Effects of a site's nodes, summed over prompts; `pos` has length 1 with positions summed."""

    feature: Float[Tensor, "pos features"]
    error: Float[Tensor, " pos"]


def gradients_at_clean(
    model: TransformerBridge, suite: Suite, state: BatchState, metric: Metric
) -> Gradients:
    """Gradient of the metric to every site's tensor and to the embeddings, on the clean prompts.

    Source: attribution patching, Syed et al. 2023, arXiv:2310.10348; for features, Marks et al.
    2024, arXiv:2403.19647.
    """
    leaf = state.values[EMBED].detach().requires_grad_()
    with (
        state.under(state.every_row),
        capture(model, suite) as seen,
        intervene(model, {EMBED: lambda _: leaf}),
        reading(model, metric) as read,
    ):
        logits = last_logits(model, state.clean)
    rows = state.rows
    value = read(None, rows) if isinstance(metric, SiteMetric) else metric(logits, rows)
    return _gradients(value, {EMBED: leaf} | {site: seen[site] for site in suite}, metric)


def _gradients(
    value: Float[Tensor, " rows"], tensors: Mapping[Site, Tensor], metric: Metric
) -> Gradients:
    """Gradients of the summed `value`; zero at sites that cannot reach it."""
    found = torch.autograd.grad(value.sum(), list(tensors.values()), allow_unused=True)
    return {
        site: torch.zeros_like(tensor) if g is None or not reaches(metric, site) else g
        for (site, tensor), g in zip(tensors.items(), found, strict=True)
    }


def gradients_along_path(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    metric: Metric,
    *,
    steps: int,
) -> Gradients:
    """Mean gradient as all nodes of a site move together from clean to reference.

    Points are the midpoints t = (j + 1/2) / steps. The features and the error of a site move
    along, so its tensor runs on the straight line between its two values; other sites react.
    Before the first position at which a site moves, its gradient is left at zero: no node is there.

    Source: integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365; Marks et al. 2024,
    arXiv:2403.19647.
    Differs: midpoints, where published code of the latter takes left end points.
    """
    changes = {EMBED: state.embed_change}
    changes |= {site: state.sites[site].tensor_change(d) for site, d in suite.items()}
    return {
        site: _path_gradient(model, state, metric, site, change, steps)
        if change.any() and reaches(metric, site)
        else torch.zeros_like(change)
        for site, change in changes.items()
    }


def gradients_along_inputs(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    metric: Metric,
    *,
    steps: int,
) -> Gradients:
    """Mean gradient at every site as the embeddings move from clean to patch, all sites at once.

    One path serves every site, so a step costs one forward and one backward pass, where `ig`
    takes as many as there are sites. The price: a site's tensor is not on the straight line
    between its two values, so its nodes' effects do not add up to what moving it does.

    Source: EAP-IG (inputs), Hanna et al. 2024, arXiv:2403.17806.
    Differs: midpoints t = (j + 1/2) / steps.
    """
    clean, change = state.values[EMBED], state.embed_change
    sites, times = [EMBED, *suite], (torch.arange(steps) + 0.5) / steps
    totals = {site: torch.zeros_like(state.values[site]) for site in sites}
    for some in times.split(max(1, TOKENS_AT_ONCE // clean[..., 0].numel())):
        t = rearrange(some.to(clean), "t -> t 1 1 1")
        points = rearrange(clean + t * change, "t batch pos d -> (t batch) pos d")
        leaf = points.detach().requires_grad_()
        index = repeat(torch.arange(len(clean)), "batch -> (t batch)", t=len(some))
        with (
            state.under(index),
            capture(model, suite) as seen,
            reading(model, metric) as read,
        ):
            final = resume(model, leaf, 0, state.arguments.rows(index))
        value = read(final[:, -1:], state.rows[index])
        tensors = {EMBED: leaf} | {site: seen[site] for site in suite}
        for site, gradient in _gradients(value, tensors, metric).items():
            totals[site] += rearrange(
                gradient, "(t batch) pos d -> t batch pos d", t=len(some)
            ).sum(0)
    return {site: total / steps for site, total in totals.items()}


def _path_gradient(
    model: TransformerBridge,
    state: BatchState,
    metric: Metric,
    site: Site,
    change: Float[Tensor, "batch pos d_model"],
    steps: int,
) -> Float[Tensor, "batch pos d_model"]:
    clean = state.values[site]
    times = (torch.arange(steps) + 0.5) / steps
    total = torch.zeros_like(clean)
    for some in times.split(max(1, TOKENS_AT_ONCE // clean[..., 0].numel())):
        t = rearrange(some.to(clean), "t -> t 1 1 1")
        points = rearrange(clean + t * change, "t batch pos d -> (t batch) pos d")
        leaf = points.detach().requires_grad_()
        index = repeat(torch.arange(len(clean)), "batch -> (t batch)", t=len(some))
        moved = metric_from(model, state, site, leaf, index, metric).sum()
        (gradient,) = torch.autograd.grad(moved, leaf)
        total += rearrange(gradient, "(t batch) pos d -> t batch pos d", t=len(some)).sum(0)
    return total / steps


def metric_from(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows pos d_site"],
    index: Tensor,
    metric: Metric,
) -> Float[Tensor, " rows"]:
    """The metric with the tensor at `site` set to `value`; `index` as in `run_from`."""
    rows = state.rows[index]
    if not isinstance(metric, SiteMetric):
        return metric_at(model, run_from(model, state, site, value, index), metric, rows)
    if not reaches(metric, site):
        return metric.clean[rows].to(value)
    if site == metric.site:
        return metric.read(value, rows)
    whole = site.kind in ("embed", "resid_post")
    first = site.layer + 1 if whole else site.layer
    resid = value if whole else state.values[Site("resid_pre", first)][index]
    replace: Edit = lambda _: value  # noqa: E731
    edits = None if whole else intervene(model, {site: replace})
    with state.under(index), reading(model, metric, edits) as read:
        arguments = state.arguments.rows(index)
        resume(model, resid, first, arguments, stop=metric.site.layer + 1)
    return read(None, rows)


def run_from(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows pos d_site"],
    index: Tensor,
) -> Float[Tensor, "rows 1 d_model"]:
    """The last token's stream after all blocks with the tensor at `site` set to `value`.

    Nothing before it is run again.

    `index` says which prompt of the batch each row is. Positions before the first at which
    `value` differs from the clean run stay as they are and are not run either: no gradient
    reaches them. Where something watches the model, it sees the site's whole block, and all of
    its positions.
    """
    with state.under(index):
        return _run_from(model, state, site, value, index)


def _run_from(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows pos d_site"],
    index: Tensor,
) -> Float[Tensor, "rows 1 d_model"]:
    first, watched = 0, is_watched(model)
    if state.arguments.past is not None and not watched:
        differs = (value != state.values[site][index]).any(-1).any(0)
        first = int(differs.int().argmax()) if differs.any() else len(differs) - 1
    arguments = state.arguments.rows(index, first=first)
    value = value[:, first:]
    if watched or site.kind not in ("mlp_out", "attn_out"):
        resid, layer = _through_block(model, state, site, value, index, first, arguments)
    else:
        resid, layer = _stream_after(model, state, site, value, index, first)
    return finish(model, resid, layer, arguments, watched=watched)


def _through_block(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows later d_site"],
    index: Tensor,
    first: int,
    arguments: BlockArguments,
) -> tuple[Float[Tensor, "rows later d_model"], int]:
    """The stream after the site's block, and the layer that it enters."""
    after = site.layer + 1
    if site.kind in ("embed", "resid_post"):
        return value, after
    start = state.values[Site("resid_pre", site.layer)][index, first:]
    replace: Edit = lambda _: value  # noqa: E731
    with intervene(model, {site: replace}):
        return resume(model, start, site.layer, arguments, stop=after), after


def _stream_after(
    model: TransformerBridge,
    state: BatchState,
    site: Site,
    value: Float[Tensor, "rows later d_model"],
    index: Tensor,
    first: int,
) -> tuple[Float[Tensor, "rows later d_model"], int]:
    """As `_through_block`, without what comes before the site in its block."""

    def clean(kind: str) -> Tensor:
        return state.values[Site(kind, site.layer)][index, first:]

    if site.kind == "mlp_out":
        return clean("resid_post") + (value - clean("mlp_out")), site.layer + 1
    return mlp_half(model, clean("resid_pre") + value, site.layer), site.layer + 1


def node_effects(
    suite: Suite, state: BatchState, gradients: Mapping[Site, Tensor], *, positions: Positions
) -> dict[Site, SiteEffects]:
    """Effects of every feature and error, and of the embeddings, summed over the batch.

    feature  (f'_i - f_i) * (W_dec_i . g)        error  (e' - e) . g
    """
    join = _over(positions)
    effects = {
        EMBED: SiteEffects(
            feature=join((state.embed_change * gradients[EMBED]).sum(-1, keepdim=True)),
            error=join(torch.zeros_like(state.embed_change[..., 0])),
        )
    }
    for site, dictionary in suite.items():
        nodes, g = state.sites[site], gradients[site]
        effects[site] = SiteEffects(
            feature=join(nodes.f_change * dictionary.along(g)),
            error=join((nodes.error_change * g).sum(-1)),
        )
    return effects


def effects_by_prompt(
    suite: Suite, state: BatchState, gradients: Mapping[Site, Tensor], nodes: Sequence[Node]
) -> Float[Tensor, "nodes batch"]:
    """The estimate of each node's effect on each prompt of the batch."""
    rows = []
    for node in nodes:
        site = Site.parse(node.site)
        at = slice(None) if node.position is None else slice(node.position, node.position + 1)
        change = node_change(suite, state, site, node)[:, at]
        rows.append((change * gradients[site][:, at]).sum((1, 2)).double())
    return torch.stack(rows)


def _over(positions: Positions) -> Callable[[Tensor], Tensor]:
    """Sum over prompts, and over positions too unless they are kept (axis of length 1 left)."""
    if positions == "sum":
        return lambda x: x.double().sum((0, 1)).unsqueeze(0)
    return lambda x: x.double().sum(0)

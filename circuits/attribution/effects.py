"""Node effects by gradient: what setting each node to its reference value would do to the metric.

    patching   IE_i ~ (a'_i - a_i) * dm/da_i                        gradient at the clean value
    ig         IE_i ~ (a'_i - a_i) * mean over t of dm/da_i         at a + t (a' - a)
    ig-inputs  the same mean, as the embeddings go to the patch and every node follows
    relp       patching, the gradient taken by `hooked_qwen.relevance`'s rules

The site's tensor is the sum of what its nodes write, so the gradient of a feature is the site's
gradient times the feature's decoder row, and one backward pass serves every feature of a site.
All are first order in the change; `circuits.ablation.exact_effects` measures the same effects
exactly.

Units are those of the metric; positive means that the change raises it.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.deltas import by_name, node_gains
from circuits.attribution.forward import metric_from
from circuits.attribution.node_effects import ERROR, TOKEN, NodeEffects, keys
from circuits.attribution.state import BatchState
from circuits.metrics.metric import Metric, SiteMetric, reaches, reading
from hooked_qwen.forward import last_logits, resume
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from saes.suite import Suite

Gradients = dict[Site, Float[Tensor, "batch pos d_model"]]
TOKENS_AT_ONCE = 1024


def gradients_at_clean(analysis: Analysis, state: BatchState) -> Gradients:
    """Gradient of the metric to every site's tensor and to the embeddings, on the clean prompts.

    Source: attribution patching, Syed et al. 2023, arXiv:2310.10348; for features, Marks et al.
    2024, arXiv:2403.19647.
    """
    model, writes, metric = analysis.model, analysis.suite.writes, analysis.metric
    leaf = state.values[EMBED].detach().requires_grad_()
    with (
        state.under(state.every_row),
        capture(model, writes) as seen,
        intervene(model, {EMBED: lambda _: leaf}),
        reading(model, metric) as read,
    ):
        logits = last_logits(model, state.clean)
    rows = state.rows
    value = read(None, rows) if isinstance(metric, SiteMetric) else metric(logits, rows)
    return _gradients(value, {EMBED: leaf} | {site: seen[site] for site in writes}, metric)


def _gradients(
    value: Float[Tensor, " rows"], tensors: Mapping[Site, Tensor], metric: Metric
) -> Gradients:
    """Gradients of the summed `value`; zero at sites that cannot reach it."""
    found = torch.autograd.grad(value.sum(), list(tensors.values()), allow_unused=True)
    return {
        site: torch.zeros_like(tensor) if g is None or not reaches(metric, site) else g
        for (site, tensor), g in zip(tensors.items(), found, strict=True)
    }


def gradients_along_path(analysis: Analysis, state: BatchState) -> Gradients:
    """Mean gradient on the path that takes all nodes of a site together from clean to reference.

    Points are the midpoints t = (j + 1/2) / `config.steps`. The features and the error of a site
    move along, so its tensor runs on the straight line between its two values; other sites react.
    Before the first position at which a site changes, its gradient is left at zero: no changed node
    is there.

    Source: integrated gradients, Sundararajan et al. 2017, arXiv:1703.01365; Marks et al. 2024,
    arXiv:2403.19647.
    Differs: midpoints, where published code of the latter takes left end points.
    """
    suite, metric = analysis.suite, analysis.metric
    changes = {EMBED: state.embed_change}
    changes |= {site: state.tensor_change(suite, site) for site in suite.writes}
    # All sites at once: each look at a number makes the host wait for the device.
    changed = torch.stack([change.any(-1).any(0) for change in changes.values()]).tolist()
    return {
        site: _path_gradient(analysis, state, site, change, positions.index(True))
        if True in positions and reaches(metric, site)
        else torch.zeros_like(change)
        for positions, (site, change) in zip(changed, changes.items(), strict=True)
    }


def gradients_along_inputs(analysis: Analysis, state: BatchState) -> Gradients:
    """Mean gradient at every site as the embeddings move from clean to patch, all sites at once.

    One path serves every site, so a step costs one forward and one backward pass, where `ig`
    takes as many as there are sites. The price: a site's tensor is not on the straight line
    between its two values, so its nodes' effects do not add up to what moving it does.

    Source: EAP-IG (inputs), Hanna et al. 2024, arXiv:2403.17806.
    Differs: midpoints t = (j + 1/2) / `config.steps`.
    """
    model, writes, metric = analysis.model, analysis.suite.writes, analysis.metric
    steps = analysis.config.steps
    totals = {site: torch.zeros_like(state.values[site]) for site in (EMBED, *writes)}
    for leaf, index in _points(state, EMBED, state.embed_change, steps):
        with (
            state.under(index),
            capture(model, writes) as seen,
            reading(model, metric) as read,
        ):
            final = resume(model, leaf, 0, state.arguments.rows(index))
        value = read(final[:, -1:], state.rows[index])
        tensors = {EMBED: leaf} | {site: seen[site] for site in writes}
        for site, gradient in _gradients(value, tensors, metric).items():
            totals[site] += _over_points(gradient, state)
    return {site: total / steps for site, total in totals.items()}


def _path_gradient(
    analysis: Analysis,
    state: BatchState,
    site: Site,
    change: Float[Tensor, "batch pos d_model"],
    start: int,
) -> Float[Tensor, "batch pos d_model"]:
    total, steps = torch.zeros_like(state.values[site]), analysis.config.steps
    for leaf, index in _points(state, site, change, steps):
        value = metric_from(analysis, state, site, leaf, index, start=start).sum()
        (gradient,) = torch.autograd.grad(value, leaf)
        total += _over_points(gradient, state)
    return total / steps


def _points(
    state: BatchState, site: Site, change: Float[Tensor, "batch pos d_model"], steps: int
) -> Iterator[tuple[Float[Tensor, "rows pos d_model"], Int[Tensor, " rows"]]]:
    """Midpoints on the way of a site's tensor, several in a pass, and the prompt of each row."""
    clean = state.values[site]
    times = (torch.arange(steps, device=clean.device) + 0.5) / steps
    for some in times.split(max(1, TOKENS_AT_ONCE // clean[..., 0].numel())):
        t = rearrange(some.to(clean), "t -> t 1 1 1")
        points = rearrange(clean + t * change, "t batch pos d -> (t batch) pos d")
        index = repeat(state.every_row, "batch -> (t batch)", t=len(some))
        yield points.detach().requires_grad_(), index


def _over_points(
    gradient: Float[Tensor, "rows pos d_model"], state: BatchState
) -> Float[Tensor, "batch pos d_model"]:
    """The sum over the points of one pass."""
    return rearrange(gradient, "(t batch) pos d -> t batch pos d", batch=len(state.rows)).sum(0)


def node_effects(
    analysis: Analysis, state: BatchState, gradients: Mapping[Site, Tensor]
) -> NodeEffects:
    """Effects of every node changed on some prompt of the batch, summed over the batch.

    feature  (f'_i - f_i) * (W_dec_i . g)        error  (e' - e) . g
    """
    suite, names = analysis.suite, node_names(analysis.suite)
    columns = _columns(analysis, state)
    token = (state.embed_change * gradients[EMBED]).sum(-1)
    parts = [_one_a_position(names, EMBED, TOKEN, token, state.embed_change, columns)]
    for name in suite:
        change = state.features[name].change
        g = torch.cat([gradients[site] for site in suite.writes_of(name)], -1)
        # Nothing here holds a dictionary while the next one is read.
        effect = change.value * suite[name].along(g, change.index)
        key = keys(names, name, columns.unsqueeze(-1), change.index)
        parts.append((key, effect, change.value != 0))
    for site, nodes in state.errors.items():
        error = (nodes.change * gradients[site]).sum(-1)
        parts.append(_one_a_position(names, site, ERROR, error, nodes.change, columns))
    # One look at what changes and one sort for all: each makes the host wait for the device.
    key, effect, changes = (
        torch.cat([x.flatten() for x in of_all]) for of_all in zip(*parts, strict=True)
    )
    on = changes.nonzero().squeeze(-1)
    return NodeEffects.summed(names, key[on], effect[on].double())


def _one_a_position(
    names: Sequence[str],
    site: Site,
    kind: int,
    effect: Float[Tensor, "batch pos"],
    change: Float[Tensor, "batch pos d_model"],
    columns: Int[Tensor, "batch pos"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Key, effect and whether it changes, of nodes that there is one of at each position."""
    key = keys(names, str(site), columns, torch.full_like(columns, kind))
    return key, effect, change.any(-1)


def node_names(suite: Suite) -> tuple[str, ...]:
    """What nodes are called by: the embeddings, the dictionaries, the sites that have errors."""
    return tuple(dict.fromkeys([str(EMBED), *suite, *map(str, suite.writes)]))


def _columns(analysis: Analysis, state: BatchState) -> Int[Tensor, "batch pos"]:
    """The position that each token's effects count at: its column, or -1 where they are summed."""
    columns = torch.arange(state.n_positions, device=state.rows.device)
    summed = analysis.config.positions == "sum"
    return (columns * 0 - 1 if summed else columns).expand(len(state.rows), -1)


def effects_by_prompt(
    analysis: Analysis,
    state: BatchState,
    gradients: Mapping[Site, Tensor],
    nodes: Sequence[Node],
) -> Float[Tensor, "nodes batch"]:
    """The estimate of each node's effect on each prompt of the batch."""
    found = torch.zeros(len(nodes), len(state.rows), dtype=torch.float64)
    found = found.to(state.rows.device)
    for members, some in by_name(nodes):
        found[members] = node_gains(analysis.suite, state, gradients, some)
    return found.cpu()

"""Sparse feature circuits by the source paper's procedure, written plainly.

Nodes: each submodule in turn is put on the straight line between its clean and its patch value,
one full forward and backward pass for each of the steps, and its features' mean gradient times
their change is their effect. Edges: for each pair of submodules one forward pass in which those
between are stopped, then one backward pass for each downstream node, whose products with all
upstream features are dense.

Two costs of the same numbers:
    plain       a backward pass goes as far back as the tensor asked for; weights are frozen
    published   as the paper's code has it: the steps of a submodule are stacked into one pass,
                and `backward()` reaches everything, weights and embeddings included

Source: Marks et al. 2024, arXiv:2403.19647.
Differs, so that the numbers are those of `circuits`: midpoints of the path instead of left end
points; one set of kept nodes for all prompts instead of one for each; downstream features answer
by the slopes they are given instead of by their gradient.

Axes: `batch` prompts, `pos` positions, `features` a dictionary's, then one more for the error.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import Node
from circuits.metrics.metric import LogitMetric, Metric, SiteMetric
from circuits.prompts import EncodedPrompts
from hooked_qwen.forward import last_logits
from hooked_qwen.hooks import HookFunction, capture, intervene
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.dictionary import SparseDictionary
from saes.suite import Suite

Cost = Literal["plain", "published"]
EMBED = Site("embed")
LOGIT = Node("logit", "logit")
Values = Mapping[Site, Tensor]


@dataclass(frozen=True)
class Act:
    """Features and error of one submodule; the embeddings have an error only."""

    f: Float[Tensor, "batch pos features"]
    error: Float[Tensor, "batch pos d_model"]

    def minus(self, other: "Act") -> "Act":
        return Act(self.f - other.f, self.error - other.error)

    def products(self, other: "Act") -> Float[Tensor, "batch pos features+1"]:
        """Elementwise in the features, contracted over `d_model` for the error."""
        error = (self.error * other.error).sum(-1, keepdim=True)
        return torch.cat([self.f * other.f, error], -1)


@dataclass(frozen=True)
class Problem:
    """A model, its dictionaries, one batch of prompts, and what is measured on them."""

    model: TransformerBridge
    suite: Suite
    clean: Batch
    patch: Batch
    metric: LogitMetric
    cost: Cost

    @property
    def submodules(self) -> list[Site]:
        return [EMBED, *self.suite.writes]

    @property
    def rows(self) -> Tensor:
        return torch.arange(len(self.clean))


def problem(
    model: TransformerBridge, suite: Suite, prompts: EncodedPrompts, metric: Metric, cost: Cost
) -> Problem:
    """All prompts as one batch; at the cost `published` the model's weights take gradients."""
    assert prompts.patch is not None, "the paper's procedure moves clean prompts to patch prompts"
    assert not isinstance(metric, SiteMetric), "the paper's metrics are of logits"
    model.requires_grad_(cost == "published")
    return Problem(model, suite, prompts.clean, prompts.patch, metric, cost)


def states(p: Problem) -> tuple[dict[Site, Act], dict[Site, Act]]:
    """Features and errors of every submodule on the clean and on the patch prompts."""
    return _acts(p, p.clean), _acts(p, p.patch)


def _acts(p: Problem, batch: Batch) -> dict[Site, Act]:
    with torch.no_grad(), capture(p.model, {EMBED, *p.suite.writes, *p.suite.reads}) as values:
        last_logits(p.model, batch)
        return {site: _act(p, site, values) for site in p.submodules}


def _act(p: Problem, site: Site, values: Values) -> Act:
    if site == EMBED:
        return Act(values[EMBED][..., :0], values[EMBED])
    dictionary = p.suite[site]
    f = dictionary.encode(values[dictionary.source]).dense()
    return Act(f, values[site] - _decode(dictionary, f))


def _decode(dictionary: SparseDictionary, f: Tensor) -> Tensor:
    return f @ dictionary.W_dec + dictionary.b_dec


def node_effects(p: Problem, *, steps: int) -> dict[Node, float]:
    """Mean effect over the prompts of every node that moves."""
    clean, patch = states(p)
    effects = {}
    for site in p.submodules:
        change = patch[site].minus(clean[site])
        gradient = _mean_gradient(p, site, clean[site], patch[site], steps)
        total = gradient.products(change).double().mean(0)
        moves = torch.cat([change.f != 0, change.error.any(-1, keepdim=True)], -1).any(0)
        for position, column in moves.nonzero().tolist():
            effects[_node(p, site, position, column)] = float(total[position, column])
    return effects


def _node(p: Problem, site: Site, position: int, column: int) -> Node:
    if site == EMBED:
        return Node(str(EMBED), "token", position)
    last = p.suite[site].n_features
    return Node(str(site), "error" if column == last else column, position)


def _column(p: Problem, node: Node) -> int:
    if node.feature == "token":
        return 0
    last = p.suite[Site.parse(node.site)].n_features
    return last if node.feature == "error" else int(node.feature)


def _mean_gradient(p: Problem, site: Site, clean: Act, patch: Act, steps: int) -> Act:
    """Mean gradient of the metric to a submodule's features and error along the path."""
    times = [(step + 0.5) / steps for step in range(steps)]
    size = steps if p.cost == "published" else 1
    total = Act(torch.zeros_like(clean.f), torch.zeros_like(clean.error))
    for i in range(0, steps, size):
        for point in _gradients_at(p, site, clean, patch, times[i : i + size]):
            total = Act(total.f + point.f, total.error + point.error)
    return Act(total.f / steps, total.error / steps)


def _gradients_at(
    p: Problem, site: Site, clean: Act, patch: Act, times: Sequence[float]
) -> Iterator[Act]:
    points = [
        Act(
            ((1 - t) * clean.f + t * patch.f).requires_grad_(),
            ((1 - t) * clean.error + t * patch.error).requires_grad_(),
        )
        for t in times
    ]
    n = len(times)
    batch = Batch(tokens=p.clean.tokens.repeat(n, 1), mask=p.clean.mask.repeat(n, 1))
    written = torch.cat([_write(p, site, point) for point in points])
    replace: HookFunction = lambda _: written  # noqa: E731
    with intervene(p.model, {site: replace}):
        value = p.metric(last_logits(p.model, batch), p.rows.repeat(n)).sum()
    leaves = [leaf for point in points for leaf in (point.f, point.error)]
    found = _gradients(p, value, leaves)
    p.model.zero_grad()
    return (Act(f, error) for f, error in zip(found[::2], found[1::2], strict=True))


def _write(p: Problem, site: Site, act: Act) -> Tensor:
    return act.error if site == EMBED else _decode(p.suite[site], act.f) + act.error


def _gradients(p: Problem, value: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    if p.cost == "plain":
        found = torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True)
    else:
        for tensor in tensors:
            tensor.grad = None
        value.backward(retain_graph=True)
        found = [tensor.grad for tensor in tensors]
    return [torch.zeros_like(t) if g is None else g for t, g in zip(tensors, found, strict=True)]


def edge_weights(
    p: Problem,
    clean: Mapping[Site, Act],
    patch: Mapping[Site, Act],
    gradients: Mapping[Site, Act],
    slopes: Values,
    kept: Sequence[Node],
) -> dict[tuple[Node, Node], float]:
    """Weights of the edges among `kept` and to the metric, summed over the prompts.

    `gradients` are those of the nodes' stage; the states and slopes too are free here. Of the last
    submodule the effects themselves are the weights to the metric.
    """
    by_site = {site: [n for n in kept if n.site == str(site)] for site in p.submodules}
    weights = {}
    for down in (*p.suite.writes, None):
        targets = by_site[down] if down else [LOGIT]
        for up in upstream(p.suite, down):
            if targets and by_site[up]:
                change = patch[up].minus(clean[up])
                dense = (
                    _dense_products(p, up, down, change, gradients, slopes, targets)
                    if down or up != p.suite.writes[-1]
                    else [gradients[up].products(change).double().sum(0)]
                )
                for i, target in enumerate(targets):
                    for source in by_site[up]:
                        at = source.position, _column(p, source)
                        weights[source, target] = float(dense[i][at])
    return weights


def upstream(suite: Suite, down: Site | None) -> list[Site]:
    """Submodules with an edge to `down` (None: the metric), back to the stream before it."""
    earlier = [site for site in suite.writes if down is None or site < down]
    streams = [i for i, site in enumerate(earlier) if site.kind == "resid_post"]
    return earlier[streams[-1] :] if streams else [EMBED, *earlier]


def _dense_products(
    p: Problem,
    up: Site,
    down: Site | None,
    change: Act,
    gradients: Mapping[Site, Act],
    slopes: Values,
    targets: Sequence[Node],
) -> list[Float[Tensor, "pos features+1"]]:
    """For each downstream node, all upstream nodes' change times their gradient, over prompts."""
    x, outputs = _forward_between(p, up, down, gradients, slopes)
    dense = []
    for target in targets:
        value = outputs if down is None else outputs[target.position, _column(p, target)]
        (g,) = _gradients(p, value, [x]) if value.requires_grad else (torch.zeros_like(x),)
        act = Act(g[..., :0] if up == EMBED else g @ p.suite[up].W_dec.T, g)
        dense.append(act.products(change).double().sum(0))
    p.model.zero_grad()
    return dense


def _forward_between(
    p: Problem, up: Site, down: Site | None, gradients: Mapping[Site, Act], slopes: Values
) -> tuple[Tensor, Tensor]:
    """One clean pass with the submodules between stopped: the tensor at `up`, and what is pulled.

    That is the metric's sum, or each of `down`'s nodes times its gradient, summed over prompts.
    """
    seen: dict[Site, Tensor] = {}

    def start(value: Tensor) -> Tensor:
        if p.cost == "plain":
            value = value.detach().requires_grad_()
        else:
            value.retain_grad()
        seen[up] = value
        return value

    between = [s for s in p.suite.writes if up < s and (down is None or s < down)]
    edits: dict[Site, HookFunction] = dict.fromkeys(between, Tensor.detach) | {up: start}
    wanted = {down, p.suite[down].source} if down else {EMBED}
    with intervene(p.model, edits), capture(p.model, wanted) as values:
        value = p.metric(last_logits(p.model, p.clean), p.rows).sum()
    if down is None:
        return seen[up], value
    dictionary = p.suite[down]
    f = slopes[down] * dictionary.pre_activations(values[dictionary.source])
    act = Act(f, values[down] - _decode(dictionary, f))
    return seen[up], act.products(gradients[down]).sum(0)

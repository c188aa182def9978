"""Run the model restricted to a circuit of nodes and edges, to test its edges and not only nodes.

Nodes outside the circuit are at their baseline, as in `circuits.ablation.faithfulness`. Of those
inside, each is computed from a tensor of its own: what arrives where it reads, when the nodes with
an edge to it have the values that they have in the circuit, and all others their baseline. An
edge is the direct path, which passes no site that has dictionaries, as in
`circuits.ablation.path_patching`; modules that nobody watches, attention patterns and norms are
run again on what is left. The metric is computed as a node is, from those with an edge to it.

    x_s as d sees it = sum over nodes u at s of (u has an edge to d ? a_u : b_u) W_dec_u + b_dec
                       (+ the error in the same way)

with a_u the value of u in the circuit and b_u its baseline. With every edge between the nodes this
is the run with the nodes outside ablated, exactly; cutting u -> d changes what d reads by
(b_u - a_u) W_dec_u, along the direct paths.

Tokens: a token of the graph reaches the nodes that it has an edge to; the others see its
embedding at the baseline (the patch's, the mean over the prompts at that position, zero). A token
that is no node of the graph stays as it is. Norm outliers that stay as they are under ablation to
zero or a mean are no nodes; they send on what arrives with all edges kept.

Axes: `views` ways of seeing the nodes, `batch` prompts, `pos` columns.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from circuits.ablation.edge_circuits import OUTPUT, EdgeCircuit, View, check_circuit
from circuits.ablation.exact_effects import rows_at_once
from circuits.ablation.faithfulness import baseline_of
from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.deltas import at_positions, by_name, features_of, indices
from circuits.attribution.direct_paths import reaching_node, to_output, upstream
from circuits.attribution.state import BatchState, each
from circuits.attribution.vjp_batches import order_of
from circuits.baseline_values import BaselineValue
from circuits.metrics.metric import SiteMetric, metric_at
from hooked_qwen.forward import resume
from hooked_qwen.hooks import Activation, HookFunction, capture, intervene
from hooked_qwen.nodes import Node
from hooked_qwen.precision import widened
from hooked_qwen.sites import Site
from saes.intervention import Baseline, reads_first
from saes.suite import Suite


@dataclass(frozen=True)
class Restricted:
    """A batch of prompts in the restricted model."""

    metric: Float[Tensor, " batch"]
    change: Mapping[Node, Float[Tensor, "batch pos *width"]]
    "of each node what it is in the circuit less its baseline; an error's is a vector"


def restricted_metric(
    analysis: Analysis, circuit: EdgeCircuit, to: BaselineValue
) -> Float[Tensor, " prompts"]:
    """The metric of each prompt in the model restricted to a circuit, the rest ablated to `to`.

    Raises `ValueError` for nodes that the dictionaries do not have.
    """
    check_circuit(analysis.suite, circuit)
    found = each(analysis.states, lambda state: restricted(analysis, state, circuit, to).metric)
    return torch.cat(found).double().cpu()


@torch.no_grad()
def restricted(
    analysis: Analysis, state: BatchState, circuit: EdgeCircuit, to: BaselineValue
) -> Restricted:
    """One batch of prompts in the model restricted to a circuit, the rest ablated to `to`."""
    suite = analysis.suite
    means = analysis.means if to == "mean" else None
    base = baseline_of(suite, state, to, means)
    run = _RestrictedBatch(analysis, state, circuit, to, base)
    run.set_tokens()
    for site in suite.writes:
        run.pass_outliers(site)
        here = [n for n in circuit.nodes if n.kind != "token" and order_of(suite, n) == site]
        for _, alike in by_name(here):
            run.set_nodes(alike)
    return Restricted(run.metric(), run.change)


@dataclass(eq=False)
class _RestrictedBatch:
    """One batch on its way through the restricted model, site by site."""

    analysis: Analysis
    state: BatchState
    circuit: EdgeCircuit
    to: BaselineValue
    base: Baseline
    change: dict[Node, Tensor] = field(default_factory=dict)
    "of each node that is known so far, its value less its baseline; 0 where it is not"
    outliers: dict[Site, Activation] = field(default_factory=dict)
    "what norm outliers that stay send on, where there are any"

    @property
    def suite(self) -> Suite:
        return self.analysis.suite

    def set_tokens(self) -> None:
        """How the embeddings of the circuit's tokens differ from their baseline."""
        tokens = [n for n in self.circuit.nodes if n.kind == "token"]
        if tokens:
            clean = self.state.values[EMBED]
            gap = clean - _embedding_baseline(self.analysis, self.state, self.to)
            for node in tokens:
                self.change[node] = gap * self._at(node).unsqueeze(-1)

    def pass_outliers(self, site: Site) -> None:
        """Keep what arrives at norm outliers that stay, with all edges kept."""
        stays = self._stays(site)
        if stays is not None and stays.any():
            every = frozenset(self.change)
            reach = upstream(self.suite.writes, site)
            self.outliers[site] = self._arriving([every], reach, [site])[site][0]

    def set_nodes(self, nodes: Sequence[Node]) -> None:
        """The values of some features of one dictionary, or errors of one site."""
        name, own = nodes[0].site, nodes[0].kind == "feature"
        if own and not reads_first(self.suite, name):
            chosen = features_of(nodes, self.state)
            value = self.state.features[name].f.of(chosen).movedim(-1, 0)
            return self._keep_features(nodes, value)
        members: dict[View, list[Node]] = defaultdict(list)
        for node in nodes:
            members[self.circuit.view(node)].append(node)
        views, n = list(members), len(self.state.rows)
        reach, read = reaching_node(self.suite, nodes[0]), self._read_by(nodes[0])
        together = max(1, rows_at_once(self.state) // n)
        for first in range(0, len(views), together):
            some = views[first : first + together]
            arriving = self._arriving(some, reach, read)
            for i, view in enumerate(some):
                here = {site: value[i] for site, value in arriving.items()}
                keep = self._features if own else self._error
                keep(members[view], here)
        return None

    def metric(self) -> Float[Tensor, " batch"]:
        """The metric, computed from the nodes with an edge to it."""
        metric, rows = self.analysis.metric, self.state.rows
        view = [self.circuit.view(OUTPUT)]
        reach = to_output(self.suite, metric)
        if not isinstance(metric, SiteMetric):
            last = self._through(view, reach, [], None)
            return metric_at(self.analysis.model, last[:, -1:], metric, rows)
        if metric.when == "leaving" and metric.site in reach:
            return metric.read(self._leaving(metric.site, view)[0], rows)
        return metric.read(self._arriving(view, reach, [metric.site])[metric.site][0], rows)

    def _read_by(self, node: Node) -> list[Site]:
        """The sites whose tensors a node is computed from."""
        if node.kind == "feature":
            return sorted(self.suite.reads_of(node.site))
        site = Site.parse(node.site)
        names = [n for n in self.suite.writing(site) if reads_first(self.suite, n)]
        return sorted({site, *(s for name in names for s in self.suite.reads_of(name))})

    def _features(self, nodes: Sequence[Node], arriving: Mapping[Site, Activation]) -> None:
        """Features as they are encoded from what arrives, some at each position."""
        name, by_position = nodes[0].site, defaultdict(list)
        for node in nodes:
            by_position[node.position].append(node)
        dictionary = self.suite[name]
        for position, alike in by_position.items():
            at = slice(None) if position is None else slice(position, position + 1)
            x = dictionary.read({s: value[:, at] for s, value in arriving.items()})
            value = dictionary.encode(x).of(features_of(alike, self.state)).movedim(-1, 0)
            if position is not None:
                whole = value.new_zeros(*value.shape[:2], self.state.n_positions)
                whole[..., at] = value
                value = whole
            self._keep_features(alike, value)

    def _keep_features(
        self, nodes: Sequence[Node], value: Float[Tensor, "nodes batch pos"]
    ) -> None:
        to = self.base.features.get(nodes[0].site)
        if to is not None:
            value = value - to.of(features_of(nodes, self.state)).movedim(-1, 0)
        for node, change in zip(nodes, value, strict=True):
            self.change[node] = change * self._at(node)

    def _error(self, nodes: Sequence[Node], arriving: Mapping[Site, Activation]) -> None:
        """What the features of all dictionaries leave of what arrives."""
        site = Site.parse(nodes[0].site)
        error = arriving[site]
        for name in self.suite.writing(site):
            dictionary = self.suite[name]
            f = self.state.features[name].f
            if reads_first(self.suite, name):
                f = dictionary.encode(dictionary.read(arriving))
            error = error - dictionary.by_site(dictionary.decode(f))[site]
        gap = error - self.base.errors.get(site, 0.0)
        for node in nodes:
            self.change[node] = gap * self._at(node).unsqueeze(-1)

    def _at(self, node: Node) -> Float[Tensor, "1 pos"]:
        return at_positions([node], self.state)[0]

    def _arriving(
        self, views: Sequence[View], reach: Sequence[Site], read: Sequence[Site]
    ) -> dict[Site, Float[Tensor, "views batch pos d_model"]]:
        """What arrives at the sites `read`, as each view has it."""
        shape = len(views), len(self.state.rows)
        with capture(self.analysis.model, read) as seen:
            self._through(views, reach, read, max(site.layer for site in read) + 1)
        return {site: seen[site].unflatten(0, shape) for site in read}

    def _through(
        self,
        views: Sequence[View],
        reach: Sequence[Site],
        read: Sequence[Site],
        stop: int | None,
    ) -> Float[Tensor, "rows pos d_model"]:
        """Run from the first of the sites that `reach` the target, all of them held by view."""
        model, first = self.analysis.model, min(reach)
        resid = self._leaving(first, views).flatten(0, 1)
        layer = first.layer + 1
        held = [(s, self._leaving(s, views).flatten(0, 1)) for s in reach if s != first]
        index = self.state.every_row.repeat(len(views))
        edits: dict[Site, HookFunction] = {
            site: lambda _, value=value: value for site, value in held
        }
        with intervene(model, edits):
            return resume(model, resid, layer, self.state.arguments.rows(index), stop=stop)

    def _leaving(
        self, site: Site, views: Sequence[View]
    ) -> Float[Tensor, "views batch pos d_model"]:
        """The site's tensor as each view has it."""
        empty = self._empty(site).expand_as(self.state.values[site])
        found = empty.expand(len(views), *empty.shape)
        by_name: dict[str, list[Node]] = defaultdict(list)
        for node in self.change:
            if node.kind == "feature" and site in self.suite.writes_of(node.site):
                by_name[node.site].append(node)
            elif node.kind != "feature" and Site.parse(node.site) == site:
                found = (
                    found + self._seen(views, [node])[:, 0, None, None, None] * self.change[node]
                )
        for name, nodes in by_name.items():
            weights = self.suite[name].W_dec[torch.tensor(indices(nodes)).to(empty.device)]
            rows = self.suite[name].by_site(weights)[site]
            change = torch.stack([self.change[n] for n in nodes])
            changes = torch.einsum("vn,nbp->vbpn", self._seen(views, nodes), change)
            found = found + changes @ rows
        if site in self.outliers:
            stays = self._stays(site)
            assert stays is not None, "only where outliers stay are there any"
            found = torch.where(stays.unsqueeze(-1), self.outliers[site], found)
        return found

    def _seen(self, views: Sequence[View], nodes: Sequence[Node]) -> Float[Tensor, "views nodes"]:
        """One where a view has a node at its value in the circuit."""
        seen = torch.tensor([[node in view for node in nodes] for view in views])
        return seen.to(self.state.embed_change)

    def _empty(self, site: Site) -> Float[Tensor, "#batch #pos d_model"]:
        """The site's tensor with every node at its baseline; of the embeddings, the circuit's."""
        if site == EMBED:
            tokens = (self.change[n] for n in self.circuit.nodes if n.kind == "token")
            return self.state.values[EMBED] - sum(tokens)
        found = self.base.errors.get(site, 0.0)
        for name in self.suite.writing(site):
            dictionary, to = self.suite[name], self.base.features.get(name)
            written = dictionary.b_dec[None, None] if to is None else dictionary.decode(to)
            found = found + dictionary.by_site(written)[site]
        assert isinstance(found, Tensor), f"a dictionary writes {site}"
        return found

    def _stays(self, site: Site) -> Bool[Tensor, "batch pos"] | None:
        """The tokens that are left as they arrive."""
        spared = self.base.spared.get(str(site))
        return None if spared is None else spared.tokens({}, None)


def _embedding_baseline(
    analysis: Analysis, state: BatchState, to: BaselineValue
) -> Float[Tensor, "#batch #pos d_model"]:
    """What the embedding of a token goes to."""
    clean = state.values[EMBED]
    if to == "zero":
        return torch.zeros_like(clean[:1, :1])
    if to == "patch":
        return clean + state.embed_change
    batch = analysis.prompts.patch or analysis.prompts.clean
    table = cast(Any, analysis.model.original_model).get_input_embeddings().weight
    embedded = widened(table[batch.tokens.to(table.device)]).to(clean)
    mask = batch.mask.to(clean).unsqueeze(-1)
    over = (0, 1) if analysis.config.positions == "sum" else (0,)
    total, count = (embedded * mask).sum(over, keepdim=True), mask.sum(over, keepdim=True)
    return total / count.clamp_min(1)

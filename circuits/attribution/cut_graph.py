"""One forward pass cut at every site of a graph, so that each edge can be read off alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.attribution.decomposed_run import EMBED
from circuits.attribution.state import BatchState
from circuits.metrics.metric import reading
from hooked_qwen.forward import has_hooks, resume
from hooked_qwen.hooks import Activation, HookFunction, capture_arriving, intervene
from hooked_qwen.sites import Site


@dataclass(frozen=True)
class CutModel:
    """One forward pass in pieces: what arrives at each site, and the leaf that leaves it."""

    first: int
    "the first position in them"
    arrivals: dict[Site, Activation]
    leaves: dict[Site, Activation]
    metric: Float[Tensor, ""]

    def read(self, site: Site, own: Sequence[Site]) -> Activation:
        """What a dictionary that writes `own` reads at `site`: where others write, what leaves."""
        arrives = self.arrivals[site]
        return arrives if site in own else self.leaves.get(site, arrives)

    def pull(
        self, sources: Sequence[Site], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> dict[Site, Float[Tensor, "vjps batch run d_model"]]:
        """Gradients to the leaves at `sources`, at the positions that were run."""
        # One batched backward pass for all products. The graph is kept, since every batch of them
        # goes back through it; a leaf that no output depends on has no gradient.
        pulled = torch.autograd.grad(
            outputs,
            [self.leaves[s] for s in sources],
            cotangents,
            is_grads_batched=True,
            retain_graph=True,
            allow_unused=True,
        )
        return {s: x for s, x in zip(sources, pulled, strict=True) if x is not None}


def cut(
    analysis: Analysis,
    state: BatchState,
    *,
    first: int = 0,
    share: float = 0.0,
) -> CutModel:
    """Run the clean prompts with the graph cut at the embeddings and at every site written.

    What leaves each cut is its clean value and `share` of the way to its reference value, the same
    share at all of them. Positions before `first` are not run again: attention sees the
    keys and values they had, and no node changes there.
    """
    model, suite, metric = analysis.model, analysis.suite, analysis.metric
    leaves: dict[Site, Activation] = {}

    def on_the_way(site: Site) -> Activation:
        return (state.values[site] + share * state.tensor_change(suite, site))[:, first:]

    def sever(site: Site) -> HookFunction:
        def edit(value: Activation) -> Activation:
            leaves[site] = (on_the_way(site) if share else value).detach().requires_grad_()
            return leaves[site]

        return edit

    embedded = state.values[EMBED] + share * state.embed_change
    leaves[EMBED] = embedded[:, first:].detach().requires_grad_()
    arguments = state.arguments.rows(state.every_row, first=first)
    recorded = {*suite.writes, *suite.reads}
    edits = intervene(model, {s: sever(s) for s in suite.writes})
    with capture_arriving(model, recorded) as arrivals, reading(model, metric, edits) as read:
        final = resume(model, leaves[EMBED], 0, arguments)
    value = read(final[:, -1:], state.rows).sum()
    return CutModel(first, arrivals, leaves, value)


def first_change(model: TransformerBridge, state: BatchState) -> int:
    """The first position at which any node of any prompt changes: no edge begins before it.

    The last position where nothing changes; 0 where the keys and values of the clean run were not
    kept, or the model has hooks.
    """
    if state.arguments.cache is None or has_hooks(model):
        return 0
    changed = state.embed_change.any(-1)
    for nodes in state.features.values():
        changed = changed | nodes.change.value.any(-1)
    for error in state.errors.values():
        changed = changed | error.change.any(-1)
    found = changed.any(0).nonzero().flatten().tolist()
    return found[0] if found else state.n_positions - 1

"""One forward pass cut at every site of a graph, so that each edge can be read off alone."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.attribution.state import EMBED, BatchState
from circuits.metrics.metric import Metric, reading
from hooked_qwen.forward import is_watched, resume
from hooked_qwen.hooks import Activation, Edit, capture_arriving, intervene
from hooked_qwen.sites import Site
from saes.suite import Suite


@dataclass(frozen=True)
class CutModel:
    """One forward pass in pieces: what arrives at each site, and the leaf that leaves it."""

    first: int
    "the first position in them"
    arrivals: dict[Site, Activation]
    leaves: dict[Site, Activation]
    metric: Float[Tensor, ""]

    def read(self, source: Site, target: Site) -> Activation:
        """What the dictionary at `target` reads: of a site with another dictionary, what leaves."""
        arrives = self.arrivals[source]
        return arrives if source == target else self.leaves.get(source, arrives)


def cut(
    model: TransformerBridge,
    suite: Suite,
    state: BatchState,
    metric: Metric,
    *,
    first: int = 0,
    moved: float = 0.0,
) -> CutModel:
    """Run the clean prompts with the graph cut at the embeddings and at every site of `suite`.

    With `moved`, what leaves each cut is that share of the way from its clean to its reference
    value, at all of them alike. Positions before `first` are not run again: attention sees the
    keys and values they had, and nothing moves there.
    """
    leaves: dict[Site, Activation] = {}

    def on_the_way(site: Site) -> Activation:
        change = state.sites[site].tensor_change(suite[site])
        return (state.values[site] + moved * change)[:, first:]

    def sever(site: Site) -> Edit:
        def edit(value: Activation) -> Activation:
            leaves[site] = (on_the_way(site) if moved else value).detach().requires_grad_()
            return leaves[site]

        return edit

    embedded = state.values[EMBED] + moved * state.embed_change
    leaves[EMBED] = embedded[:, first:].detach().requires_grad_()
    arguments = state.arguments.rows(torch.arange(len(state.rows)), first=first)
    watched = {*suite, *suite.sources}
    edits = intervene(model, {s: sever(s) for s in suite})
    with capture_arriving(model, watched) as arrivals, reading(model, metric, edits) as read:
        final = resume(model, leaves[EMBED], 0, arguments)
    value = read(final[:, -1:], state.rows).sum()
    return CutModel(first, arrivals, leaves, value)


def first_move(model: TransformerBridge, state: BatchState) -> int:
    """The first position at which any node of any prompt moves: no edge begins before it.

    The last position where nothing moves; 0 where the keys and values of the clean run were not
    kept, or something watches the model.
    """
    if state.arguments.past is None or is_watched(model):
        return 0
    first = _first(state.embed_change.any(-1))
    for nodes in state.sites.values():
        earlier = slice(None, first)
        f = nodes.f_reference[:, earlier] != nodes.f[:, earlier]
        error = nodes.error_reference[:, earlier] != nodes.error[:, earlier]
        first = _first(f.any(-1) | error.any(-1))
    return min(first, state.clean.tokens.shape[1] - 1)


def _first(moved: Bool[Tensor, "batch pos"]) -> int:
    """The first position that moves on any prompt, their number if none does."""
    some = moved.any(0)
    return int(some.int().argmax()) if some.any() else len(some)

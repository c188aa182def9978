"""How much of a replacement graph's outputs runs through each node: one pass from the top down.

    A[t, s]      = |w(s -> t)| / sum over s of |w(s -> t)|
    influence(s) = sum over targets t of A[t, s] * influence(t)        an output's own is its share

over all paths. Every edge leads from a lower layer to a higher one, so once the targets above a
layer are done the influence of its features is known: the edges of one sweep are weighed and
dropped, and no more of them are ever there than one sweep has.

    replacement score    influence of tokens, of that of tokens and errors
    completeness score   share of influence, over all nodes, whose inputs are not errors

Both are of the graph before anything is left out of it. With a budget of `targets`, features of the
least influence in their layer are not traced further; they count as errors do.

Source: Ameisen et al. 2025, Circuit Tracing; Marks et al. 2024, arXiv:2403.19647.
Differs: circuit-tracer chooses which features to trace batch by batch, so that its graph depends on
the size of a batch; here a feature is chosen once its influence is final.

Axes: as in `transcoders.sources`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuits.discovery.linear_outputs import LinearOutputs
from hooked_qwen.progress import Report, silent
from transcoders.replacement import SWEPT_AT_ONCE, ReplacementModel, TargetInputs
from transcoders.sources import ERROR, FEATURE, TOKEN


@dataclass(frozen=True)
class Influence:
    """The influence of every source on a prompt's outputs."""

    of: Float[Tensor, " sources"]
    "shares of the outputs; biases have none"
    replacement: float
    completeness: float
    traced: int
    "features whose inputs were weighed"
    not_traced: int
    "and those of some influence that the budget left out"
    not_traced_influence: float


class _Tally:
    """Influence while it is added up, in float64."""

    def __init__(self, model: ReplacementModel) -> None:
        self.kind = model.sources.kind
        self.of = torch.zeros(len(self.kind), dtype=torch.float64, device=self.kind.device)

    def add(self, inputs: TargetInputs, own: Float[Tensor, " targets"]) -> None:
        """Hand the targets' `own` influence to their sources."""
        size = inputs.weight.abs().double()
        total = size.sum(0)
        flow = torch.where(total > 0, own / total, 0.0)
        self.of[: len(size)] += size @ flow

    def by_kind(self, kind: int) -> float:
        """Of all sources of a kind together."""
        return float(self.of[self.kind == kind].sum())


def influence_of(
    model: ReplacementModel,
    outputs: LinearOutputs,
    *,
    targets: int | None = None,
    at_once: int = SWEPT_AT_ONCE,
    report: Report = silent,
) -> Influence:
    """The influence of every source; of at most `targets` features the inputs are weighed.

    A sweep takes `at_once` bytes for its gradients and as many for its weights.
    """
    tally, shares = _Tally(model), outputs.shares.double()
    tally.add(outputs.inputs(model), shares)
    traced, left_out = 0, tally.of.new_zeros(0)
    there = int((model.sources.kind == FEATURE).sum())
    most = there if targets is None else min(there, targets)
    for layer, features in _from_the_top(model):
        active = features[tally.of[features] > 0]
        chosen, rest = _within(active, tally.of[active], traced, layer, model, targets)
        left_out = torch.cat([left_out, tally.of[rest]])
        for group in model.grouped(chosen, at_once):
            tally.add(model.inputs(model.features(group)), tally.of[group])
            traced += len(group)
            report("influence", min(traced, most), most)
    report("influence", most, most)
    # What is not traced further counts as an error does.
    not_traced = float(left_out.sum())
    tokens, errors = tally.by_kind(TOKEN), tally.by_kind(ERROR) + not_traced
    everything = float(tally.of.sum() + shares.sum())
    return Influence(
        of=tally.of,
        replacement=tokens / (tokens + errors) if tokens else 0.0,
        completeness=1 - errors / everything,
        traced=traced,
        not_traced=len(left_out),
        not_traced_influence=not_traced,
    )


def _from_the_top(model: ReplacementModel) -> Iterator[tuple[int, Int[Tensor, " features"]]]:
    """The features that read each layer, the highest first."""
    features = (model.sources.kind == FEATURE).nonzero().squeeze(-1)
    read = model.read_layer(features)
    for layer in sorted(set(model.reads), reverse=True):
        yield layer, features[read == layer]


def _within(
    active: Int[Tensor, " active"],
    influence: Float[Tensor, " active"],
    traced: int,
    layer: int,
    model: ReplacementModel,
    targets: int | None,
) -> tuple[Int[Tensor, " chosen"], Int[Tensor, " rest"]]:
    """Those of a layer's features that the budget allows, the ones of most influence.

    The rest of the budget is shared evenly among the layers that are left.
    """
    if targets is None:
        return active, active[:0]
    layers = len({number for number in model.reads if number <= layer})
    room = max(0, targets - traced) // layers
    order = influence.sort(descending=True, stable=True).indices
    return active[order[:room]].sort().values, active[order[room:]]

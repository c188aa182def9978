"""What a discovery tells of its prompts besides effects: the metric, activations, outliers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from circuits.attribution.deltas import at_positions, by_name, indices
from circuits.attribution.state import BatchState
from circuits.metrics.answers import preference_of
from circuits.metrics.metric import Metric, on_clean, on_patch
from circuits.prompts import EncodedPrompts
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site


class Summary:
    """Means over prompts, batch by batch; they stay on the device until they are asked for."""

    def __init__(self, prompts: EncodedPrompts, nodes: Sequence[Node]) -> None:
        self._n, self._nodes = len(prompts), nodes
        self._preference = preference_of(prompts) if all(prompts.answer_ids) else None
        self._sums: dict[str, Tensor] = {}
        self._names: list[str] = []

    def add(self, state: BatchState, metric: Metric) -> None:
        """Add the prompts of one batch."""
        clean = on_clean(metric, state.logits, state.rows).double()
        self._add("clean", clean.sum())
        self._add("size", clean.abs().sum())
        if self._preference is not None:
            self._add("right", (self._preference(state.logits, state.rows) > 0).double().sum())
        if state.patch_logits is not None:
            self._add("patch", on_patch(metric, state.patch_logits, state.rows).double().sum())
        self._add("activations", _activations(state, self._nodes))
        self._names = list(state.features)
        outliers = [state.outlier[name].sum() for name in self._names]
        self._add("outliers", torch.stack(outliers))
        self._add("tokens", state.clean.mask.sum())

    def _add(self, name: str, value: Tensor) -> None:
        self._sums[name] = self._sums[name] + value if name in self._sums else value

    def _mean(self, name: str) -> float | None:
        return float(self._sums[name]) / self._n if name in self._sums else None

    @property
    def clean(self) -> float:
        """Mean metric on the clean prompts."""
        return float(self._sums["clean"]) / self._n

    @property
    def patch(self) -> float | None:
        """Mean metric on the patch prompts, where there are any."""
        return self._mean("patch")

    @property
    def size(self) -> float:
        """Mean size of the metric on the clean prompts."""
        return float(self._sums["size"]) / self._n

    @property
    def accuracy(self) -> float | None:
        """How often the answer is preferred; None where prompts name no answer."""
        return self._mean("right")

    def activations(self) -> list[float]:
        """Mean clean activation of each node (of a summed one, the largest over positions)."""
        return (self._sums["activations"] / self._n).tolist()

    def norm_outliers(self) -> dict[str, Any]:
        """How many tokens of the clean prompts are norm outliers, at each site that has some."""
        counts = zip(self._names, self._sums["outliers"].tolist(), strict=True)
        return {"tokens": int(self._sums["tokens"]), "at": {name: n for name, n in counts if n}}


def _activations(state: BatchState, nodes: Sequence[Node]) -> Tensor:
    """The activation of each feature, and the norm of each error, summed over prompts."""
    totals = state.embed_change.new_zeros(len(nodes), dtype=torch.float64)
    for members, some in by_name(nodes):
        if some[0].kind == "error":
            norm = state.errors[Site.parse(some[0].site)].error.norm(dim=-1)
            value = norm.expand(len(some), *norm.shape)
        else:
            value = state.features[some[0].site].f.of_each(indices(some))
        value = value.double() * state.clean.mask * at_positions(some, state)
        summed = some[0].position is None
        totals[members] = (value.amax(-1) if summed else value.sum(-1)).sum(-1)
    return totals

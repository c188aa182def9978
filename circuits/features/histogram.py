"""How often each activation of a feature comes, counted in the pass that finds its examples.

    {"first": k, "per_doubling": s, "counts": [n_0, n_1, ...]}

n_i counts tokens whose activation is from 2^((k + i) / s) up to 2^((k + i + 1) / s): steps of a
logarithmic scale, for nobody knows the largest activation before the text is read.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.tokens import Batch
from hooked_qwen.transfer import to_host
from saes.examples.collect import Examples, Tally, tallied
from saes.suite import InTurn

PER_DOUBLING = 3
LOWEST, HIGHEST = -20, 20
"Powers of two at the ends of the scale; what lies beyond counts there."
STEPS = (HIGHEST - LOWEST) * PER_DOUBLING

Histogram = dict[str, Any]


class CountingTally(Tally):
    """A tally that counts activations by size as well."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        """As a `Tally`."""
        super().__init__(*args, **settings)
        self.counts = torch.zeros(len(self.fired), STEPS, dtype=torch.int64, device=self.device)

    def add(
        self,
        f: Float[Tensor, "batch pos features"],
        batch: Batch,
        lots: Float[Tensor, "batch pos"],
        first: int,
    ) -> None:
        """Take in the features of one pass."""
        super().add(f, batch, lots, first)
        values = (f * batch.mask.unsqueeze(-1)).float().flatten(0, 1).T
        step = (values.clamp_min(2.0**LOWEST).log2() * PER_DOUBLING).floor() - LOWEST * PER_DOUBLING
        self.counts.scatter_add_(1, step.long().clamp(0, STEPS - 1), (values > 0).long())

    def histograms(self) -> list[Histogram | None]:
        """One for each feature, from its smallest activation to its largest; None for none."""
        (counts,) = to_host([self.counts])
        return [_histogram(row) for row in counts.tolist()]


def _histogram(counts: Sequence[int]) -> Histogram | None:
    seen = [i for i, n in enumerate(counts) if n]
    if not seen:
        return None
    return {
        "first": seen[0] + LOWEST * PER_DOUBLING,
        "per_doubling": PER_DOUBLING,
        "counts": list(counts[seen[0] : seen[-1] + 1]),
    }


def examples_and_histograms(
    model: TransformerBridge,
    dictionaries: InTurn,
    wanted: Sequence[Sequence[int]],
    texts: Iterable[Batch],
    *,
    top: int,
) -> list[tuple[Examples, list[Histogram | None]]]:
    """`find_examples`, with the histogram of every feature wanted, from the same pass."""
    tallies, rows = tallied(model, dictionaries, wanted, texts, top=top, kind=CountingTally)
    return [(tally.examples(rows), tally.histograms()) for tally in tallies]

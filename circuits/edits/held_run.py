"""Passes of one prompt in many rows, with as much of the model held as `Mode` says.

The first row is the prompt as it is, the others are moved or edited
(`transcoders.interventions`).

Axes: `rows` of a pass; `edits` one row each, without the first.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis import Analysis
from circuits.metrics.metric import SiteMetric
from hooked_qwen.forward import LastLogits, last_logits
from hooked_qwen.hooks import Activation, capture, intervene
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.edit import Standing
from transcoders.interventions import Mode, held

ROWS_AT_ONCE = 256
TOKENS_AT_ONCE = 4096
Edits = Callable[[Standing], AbstractContextManager[object]]
"What is done to the rows of a pass, where a transcoder's features stand so."


@dataclass(frozen=True)
class HeldRun:
    """What a pass gave."""

    metric: Float[Tensor, " rows"]
    logits: LastLogits
    seen: Mapping[Site, Activation]
    "at the sites that were asked for"

    @property
    def change(self) -> Float[Tensor, " edits"]:
        """Of the metric, from the prompt as it is."""
        return (self.metric[1:] - self.metric[0]).double().cpu()


def rows_at_once(analysis: Analysis, number: int) -> int:
    """Edits of a prompt that one pass takes."""
    tokens = int(analysis.prompts.clean.mask[number].sum())
    return max(1, min(ROWS_AT_ONCE, TOKENS_AT_ONCE // tokens))


@torch.no_grad()
def run_held(
    analysis: Analysis,
    number: int,
    rows: int,
    mode: Mode,
    edits: Edits,
    *,
    reads: Iterable[Site] = (),
) -> HeldRun:
    """One pass of a clean prompt in so many rows; what is at the sites `reads` is kept."""
    model, metric, batch = analysis.model, analysis.metric, analysis.prompts.clean
    when = metric.when if isinstance(metric, SiteMetric) else None
    read = {metric.site} if isinstance(metric, SiteMetric) else set()
    tokens = batch.tokens[number][batch.mask[number]].expand(rows, -1)
    with ExitStack() as stack:
        standing = stack.enter_context(held(model, analysis.suite, mode))
        early = {*reads, *(read if when == "arriving" else ())}
        seen = stack.enter_context(capture(model, early))
        stack.enter_context(edits(standing))
        left = stack.enter_context(capture(model, read if when == "leaving" else ()))
        logits = last_logits(
            model, Batch(tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool))
        )
        which = torch.full((rows,), number, device=logits.device)
        if isinstance(metric, SiteMetric):
            value = metric.read({**seen, **left}[metric.site], which)
        else:
            value = metric(logits, which)
    return HeldRun(value, logits, dict(seen))


def adding(analysis: Analysis, moves: Mapping[Site, Float[Tensor, "rows pos d_model"]]) -> Edits:
    """Edits that add known amounts to the tensors of some sites."""

    def edits(_standing: Standing) -> AbstractContextManager[object]:
        device = device_of(analysis.model)
        there = {site: move.to(device) for site, move in moves.items()}
        changes = {site: lambda x, move=move: x + move for site, move in there.items()}
        return intervene(analysis.model, changes)

    return edits

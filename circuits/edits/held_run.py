"""Passes of one prompt in many rows, with as much of the model held as `Mode` says.

The first row is the prompt as it is, the others are moved or edited
(`transcoders.interventions`).

Axes: `rows` of a pass; `edits` one row each, without the first.
"""

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuits.analysis import Analysis
from circuits.edits.patch import patch_values
from circuits.graph import Node
from circuits.metrics.metric import SiteMetric
from hooked_qwen.forward import LastLogits, last_logits
from hooked_qwen.hooks import Activation, capture, intervene
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch
from saes.edit import Standing, applied_by_row
from saes.edit_checks import check_edit
from saes.edit_file import Edit
from saes.edited_pass import Patch
from saes.firing import Firing
from transcoders.in_suite import transcoders_among
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


def adding(analysis: Analysis, deltas: Mapping[Site, Float[Tensor, "rows pos d_model"]]) -> Edits:
    """Edits that add known amounts to the tensors of some sites."""

    def edits(_standing: Standing) -> AbstractContextManager[object]:
        device = device_of(analysis.model)
        there = {site: delta.to(device) for site, delta in deltas.items()}
        changes = {site: lambda x, delta=delta: x + delta for site, delta in there.items()}
        return intervene(analysis.model, changes)

    return edits


class Fired:
    """Which edits did something in some prompt."""

    def __init__(self, edits: Sequence[Edit]) -> None:
        self.edits = edits
        self._last: dict[int, Firing] = {}
        self._known: set[int] = set()

    def note(self, first: int, firing: Iterable[Firing | None]) -> None:
        """What became known in a pass of those from number `first` on."""
        for i, each in enumerate((f for f in firing if f is not None), first):
            self._last[i] = each
            if each.fired:
                self._known.add(i)

    def require(self, tokenizer: Any) -> None:
        """Raise `RuntimeError` for an edit that did nothing in any of the passes."""
        for i, firing in self._last.items():
            if i not in self._known:
                firing.require(self.edits[i], tokenizer)


def has_transcoders(analysis: Analysis) -> bool:
    """Whether the MLPs can be replaced."""
    try:
        return bool(transcoders_among(analysis.suite))
    except ValueError:
        return False


def held_edits(
    analysis: Analysis,
    number: int,
    edits: Sequence[Edit],
    mode: Mode,
    fired: Fired | None = None,
) -> HeldRun:
    """A prompt as it is and under each edit; raises as `saes.edit_checks.check_edit` does."""
    for edit in edits:
        check_edit(analysis.suite, edit)
    patch = _patch(analysis, number, edits)
    size, parts = rows_at_once(analysis, number), []
    for start in range(0, len(edits), size):
        some = edits[start : start + size]

        @contextmanager
        def applied(
            standing: Standing, some: Sequence[Edit] = some, start: int = start
        ) -> Generator[None, None, None]:
            with applied_by_row(
                analysis.model,
                analysis.suite,
                [None, *some],
                patch=patch,
                must_fire=fired is None,
                standing=standing,
            ) as firing:
                yield
            if fired is not None:
                fired.note(start, firing)

        parts.append(run_held(analysis, number, 1 + len(some), mode, applied))
    first, *others = parts
    if not others:
        return first
    return HeldRun(_joined([p.metric for p in parts]), _joined([p.logits for p in parts]), {})


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """The first row once, then those of the edits."""
    return torch.cat([parts[0][:1], *(part[1:] for part in parts)])


def _patch(analysis: Analysis, number: int, edits: Sequence[Edit]) -> Patch | None:
    """What nodes are on the prompt's patch, without its padding; None where no edit asks."""
    operations = [op for edit in edits for op in edit.operations if op.needs == "patch"]
    if not operations:
        return None
    known = patch_values(analysis, Edit(operations=tuple(operations)), torch.tensor([number]))
    tokens = int(analysis.prompts.clean.mask[number].sum())

    def value(node: Node) -> Float[Tensor, "#rows #pos *width"]:
        return known(node)[:, -tokens:]

    return value

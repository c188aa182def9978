"""The replacement models of an analysis' prompts, one prompt at a time."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from circuits.analysis import Analysis
from circuits.attribution.node_effects import ERROR as ERROR_NUMBER
from circuits.attribution.node_effects import TOKEN as TOKEN_NUMBER
from circuits.attribution.node_effects import keys
from circuits.discovery.linear_outputs import LinearOutputs, linear_outputs
from hooked_qwen.sites import forward_order
from hooked_qwen.tokens import Batch
from saes.formats.shapes import FLOAT32
from transcoders.in_suite import transcoders_among
from transcoders.replacement import (
    PATTERNS_KEPT,
    ROWS_KEPT,
    SWEPT_AT_ONCE,
    ReplacementModel,
    replace_mlps,
)
from transcoders.sources import ERROR, FEATURE, TOKEN, Pinned

EMBED = "embed"
Pinning = Callable[[Batch, int], Pinned]
"What is pinned in one row of a batch of clean or of patch prompts."


TOGETHER = 8
"Targets that a sweep has at least, where there is room: they share patterns that are made again."


@dataclass(frozen=True)
class Budget:
    """Bytes that one prompt's replacement model may take."""

    rows: int
    "of what is written, kept between sweeps"
    patterns: int
    "kept too"
    sweep: int
    "a sweep's gradient, and as many for its weights"

    @classmethod
    def of(cls, room: float, target: int) -> "Budget":
        """All together `room`; the gradient of one target has `target` bytes."""
        # A sweep holds some eight tensors of its size for a while.
        return cls(
            rows=int(min(ROWS_KEPT, room / 2)),
            patterns=int(min(PATTERNS_KEPT, room / 4)),
            sweep=int(min(max(SWEPT_AT_ONCE, TOGETHER * target), room / 32)),
        )


@dataclass(frozen=True)
class ReplacedPrompt:
    """One prompt's replacement model, its outputs, and every source as a node."""

    number: int
    "of the prompt"
    model: ReplacementModel
    outputs: LinearOutputs
    key: Int[Tensor, " sources"]
    "as in `NodeEffects`; -1 for biases"


def by_transcoders(analysis: Analysis) -> Analysis:
    """The analysis by the transcoders of its suite alone; raises `ValueError` without any."""
    suite, chosen = analysis.suite, transcoders_among(analysis.suite)
    return analysis.by(suite.exchanging([name for name in suite if name not in chosen], {}))


class ReplacedPrompts:
    """The clean prompts, opened as they are asked for; a single one is opened once.

    Under an ablation some nodes are pinned, and the models are those of the prompts under it.
    """

    def __init__(self, analysis: Analysis, pinning: Pinning | None = None) -> None:
        self.analysis, self._pinning = analysis, pinning
        sites = {f"mlp_out.{layer}" for layer in range(analysis.model.cfg.n_layers)}
        self.names = tuple(sorted({*analysis.suite, *sites, EMBED}, key=forward_order))
        cfg, tokens = analysis.model.cfg, analysis.prompts.clean.tokens.shape[1]
        width = max(cfg.d_model, cfg.n_heads * cfg.d_head)
        room = analysis.suite.room_for_states(float("inf"))
        self._budget = Budget.of(room, FLOAT32 * tokens * width)
        self._single: ReplacedPrompt | None = None

    @classmethod
    def of_transcoders(
        cls, analysis: Analysis, pinning: Pinning | None = None
    ) -> "ReplacedPrompts":
        """Those of an analysis whose suite may hold other dictionaries too, which are left aside.

        Raises `ValueError` without transcoders.
        """
        return cls(by_transcoders(analysis), pinning)

    @property
    def at_once(self) -> int:
        """Bytes of a sweep's gradient, and of its weights."""
        return self._budget.sweep

    def __len__(self) -> int:
        return len(self.analysis.prompts)

    def __iter__(self) -> Iterator[ReplacedPrompt]:
        for number in range(len(self)):
            yield self._single or self._open(number)

    def _open(self, number: int) -> ReplacedPrompt:
        model = self.replaced(self.analysis.prompts.clean, number)
        outputs = linear_outputs(self.analysis, model, number)
        opened = ReplacedPrompt(number, model, outputs, self._key(model))
        if len(self) == 1:
            self._single = opened
        return opened

    def replaced(self, batch: Batch, number: int) -> ReplacementModel:
        """The replacement model of one row of a batch, without its padding."""
        tokens = batch.tokens[number][batch.mask[number]]
        model, suite = self.analysis.model, self.analysis.suite
        kept = self._budget
        return replace_mlps(
            model,
            suite,
            tokens,
            rows_kept=kept.rows,
            patterns_kept=kept.patterns,
            pinned=None if self._pinning is None else self._pinning(batch, number),
        )

    def _key(self, model: ReplacementModel) -> Int[Tensor, " sources"]:
        sources, found = model.sources, torch.full_like(model.sources.kind, -1)
        width = self.analysis.prompts.clean.tokens.shape[1]
        position = sources.position + (width - model.n_tokens)
        if self.analysis.config.positions == "sum":
            position = torch.full_like(position, -1)
        feature = torch.where(sources.kind == ERROR, ERROR_NUMBER, TOKEN_NUMBER)
        feature = torch.where(sources.kind == FEATURE, sources.feature, feature)
        layers = [f"mlp_out.{layer}" for layer in range(len(sources.layers))]
        these = [(name, sources.dictionary == i) for i, name in enumerate(model.names)]
        these += [
            (name, (sources.kind == ERROR) & (sources.layer == i)) for i, name in enumerate(layers)
        ]
        for name, of in (*these, (EMBED, sources.kind == TOKEN)):
            found[of] = keys(self.names, name, position[of], feature[of])
        return found

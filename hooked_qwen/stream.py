"""Shuffled activations of many sites, harvested from one forward pass of the model.

Every dictionary of every layer trains on the same pass, so the model, which is the slow part,
runs once whatever the number of sites.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch, token_blocks

OUTLIER_FACTOR = 10.0


@dataclass(frozen=True, kw_only=True)
class StreamConfig:
    """How text becomes batches of activations."""

    block_length: int = 128
    "tokens of running text that the model sees at once"
    blocks_per_pass: int = 16
    "blocks in one forward pass"
    batch_size: int = 1024
    "activations in one training batch"
    buffer_size: int = 16_384
    "activations that are shuffled together"
    reuse: int = 1
    "times each activation is seen; above 1 pays off when the model is slower than the training"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("block_length", "blocks_per_pass", "batch_size", "buffer_size", "reuse"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.buffer_size < self.batch_size:
            raise ValueError(
                f"the buffer ({self.buffer_size} activations) must hold at least one batch "
                f"({self.batch_size})"
            )


@dataclass(frozen=True)
class ActivationBatch:
    """Activations of the same tokens at several sites.

    `outlier` marks tokens whose norm is over ten times the running median norm of the site: in
    Qwen mostly the first token of a text, a hundred times longer than the rest, which would
    decide a mean squared error alone.
    """

    values: dict[Site, Float[Tensor, "tokens d_model"]]
    outlier: dict[Site, Bool[Tensor, " tokens"]]

    def pair(
        self, source: Site, target: Site
    ) -> tuple[Float[Tensor, "tokens d_model"], Float[Tensor, "tokens d_model"]]:
        """Source and target rows of the tokens that are no outlier at either."""
        keep = ~(self.outlier[source] | self.outlier[target])
        x = self.values[source][keep]
        return x, x if source == target else self.values[target][keep]


@dataclass
class RunningMedian:
    """Median norm of each site over the text so far, for telling outliers.

    The median of each pass, averaged with weights that forget slowly.
    """

    decay: float = 0.9
    value: dict[Site, float] = field(default_factory=dict)

    def update(self, site: Site, norms: Float[Tensor, " tokens"]) -> float:
        median = float(norms.median())
        previous = self.value.get(site, median)
        self.value[site] = self.decay * previous + (1 - self.decay) * median
        return self.value[site]


def harvest(
    model: TransformerBridge,
    sites: Sequence[Site],
    texts: Iterable[str],
    *,
    config: StreamConfig,
) -> Iterator[tuple[Int[Tensor, "batch pos"], ActivationBatch]]:
    """Run the model over packed text; yield each pass's tokens and its activations in order."""
    median = RunningMedian()
    blocks = token_blocks(texts, model.tokenizer, length=config.block_length)
    for tokens in _stacked(blocks, config.blocks_per_pass):
        yield tokens, _run(model, sites, tokens, median)


def activation_batches(
    model: TransformerBridge,
    sites: Sequence[Site],
    texts: Iterable[str],
    *,
    config: StreamConfig,
) -> Iterator[ActivationBatch]:
    """Shuffled batches of `config.batch_size` activations, the same tokens at every site.

    A buffer is filled, shuffled, and handed out whole, `config.reuse` times over in different
    orders. The order depends on the seed alone. What does not fill a last batch is dropped.
    """
    generator = torch.Generator().manual_seed(config.seed)
    passes = (batch for _, batch in harvest(model, sites, texts, config=config))
    for buffer in _filled(passes, config.buffer_size):
        size = len(next(iter(buffer.values.values())))
        for _ in range(config.reuse):
            order = torch.randperm(size, generator=generator)
            for chunk in order.split(config.batch_size):
                if len(chunk) == config.batch_size:
                    yield _rows(buffer, chunk)


@torch.no_grad()
def _run(
    model: TransformerBridge,
    sites: Sequence[Site],
    tokens: Int[Tensor, "batch pos"],
    median: RunningMedian,
) -> ActivationBatch:
    device = next(model.parameters()).device
    batch = Batch(tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool)).to(device)
    with capture(model, sites) as seen:
        run_through(model, batch, max(site.layer for site in sites))
    values = {s: rearrange(seen[s], "batch pos d_model -> (batch pos) d_model") for s in sites}
    outlier = {}
    for site, value in values.items():
        norms = value.float().norm(dim=-1)
        outlier[site] = norms > OUTLIER_FACTOR * median.update(site, norms)
    return ActivationBatch(values, outlier)


def _stacked(
    blocks: Iterator[Int[Tensor, " pos"]], size: int
) -> Iterator[Int[Tensor, "batch pos"]]:
    waiting: list[Tensor] = []
    for block in blocks:
        waiting.append(block)
        if len(waiting) == size:
            yield torch.stack(waiting)
            waiting = []
    if waiting:
        yield torch.stack(waiting)


def _filled(passes: Iterator[ActivationBatch], size: int) -> Iterator[ActivationBatch]:
    waiting: list[ActivationBatch] = []
    held = 0
    for batch in passes:
        waiting.append(batch)
        held += len(next(iter(batch.values.values())))
        if held >= size:
            yield _joined(waiting)
            waiting, held = [], 0
    if waiting:
        yield _joined(waiting)


def _joined(batches: Sequence[ActivationBatch]) -> ActivationBatch:
    def join(parts: list[Mapping[Site, Tensor]]) -> dict[Site, Tensor]:
        return {site: torch.cat([part[site] for part in parts]) for site in parts[0]}

    return ActivationBatch(join([b.values for b in batches]), join([b.outlier for b in batches]))


def _rows(batch: ActivationBatch, index: Int[Tensor, " tokens"]) -> ActivationBatch:
    return ActivationBatch(
        {site: value[index] for site, value in batch.values.items()},
        {site: flag[index] for site, flag in batch.outlier.items()},
    )

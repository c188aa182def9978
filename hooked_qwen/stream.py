"""Shuffled activations of many sites, harvested from one forward pass of the model.

Every dictionary of every layer trains on the same pass, so the model, which is the slow part,
runs once whatever the number of sites.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.config_checks import check_at_least
from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.sites import Site
from hooked_qwen.tokens import Batch, token_blocks
from hooked_qwen.transfer import to_host

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
        check_at_least(1, self, "block_length", "blocks_per_pass", "reuse")
        check_at_least(1, self, "batch_size", "buffer_size")
        if self.buffer_size < self.batch_size:
            raise ValueError(
                f"the buffer ({self.buffer_size} activations) must hold at least one batch "
                f"({self.batch_size})"
            )

    @property
    def passes(self) -> int:
        """Forward passes that fill a buffer."""
        return -(-self.buffer_size // (self.block_length * self.blocks_per_pass))

    @property
    def batches_per_buffer(self) -> int:
        size = self.passes * self.block_length * self.blocks_per_pass
        return self.reuse * (size // self.batch_size)


@dataclass(frozen=True)
class ActivationBatch:
    """Activations of the same tokens at several sites.

    `outlier` marks tokens whose norm is over ten times the median norm of the site in the same
    buffer: in Qwen mostly the first token of a text, a hundred times longer than the rest. It
    would decide a mean squared error alone. The marks are on the host.
    """

    values: dict[Site, Float[Tensor, "tokens d_model"]]
    outlier: dict[Site, Bool[Tensor, " tokens"]]

    def pair(
        self, source: Site, target: Site
    ) -> tuple[Float[Tensor, "tokens d_model"], Float[Tensor, "tokens d_model"]]:
        """Source and target rows of the tokens that are no outlier at either."""
        x, y = self.values[source], self.values[target]
        # A mask as the index of each would make the host wait for the device twice.
        keep = (~(self.outlier[source] | self.outlier[target])).nonzero().squeeze(1)
        if len(keep) < len(x):
            keep = keep.to(x.device)
            x, y = (z.index_select(0, keep) for z in (x, y))
        return (x, x) if source == target else (x, y)


def buffers(
    model: TransformerBridge,
    sites: Sequence[Site],
    texts: Iterable[str],
    *,
    config: StreamConfig,
    start: int = 0,
) -> Iterator[ActivationBatch]:
    """Activations of the text in order, `config.passes` forward passes at a time.

    Buffer number `start` is the first that is given; the text before it is only tokenised.
    """
    blocks = token_blocks(texts, model.tokenizer, length=config.block_length)
    size = config.passes * config.blocks_per_pass
    blocks = islice(blocks, start * size, None)
    while chosen := list(islice(blocks, size)):
        # Kept by nobody here while the next is made.
        yield _buffer(model, sites, torch.stack(chosen).split(config.blocks_per_pass))


def _buffer(
    model: TransformerBridge, sites: Sequence[Site], passes: Sequence[Int[Tensor, "batch pos"]]
) -> ActivationBatch:
    """What several passes give, each written where it belongs: parts and whole would be twice."""
    tokens, values, at = sum(blocks.numel() for blocks in passes), {}, 0
    for blocks in passes:
        rows = _run(model, sites, blocks)
        for site, found in rows.items():
            if site not in values:
                values[site] = found.new_empty(tokens, found.shape[1])
            values[site][at : at + len(found)] = found
        at += blocks.numel()
    return ActivationBatch(values, outliers_of(values))


def outliers_of(values: Mapping[Site, Tensor]) -> dict[Site, Tensor]:
    """Where each site has outliers, on the host, which so knows how many there are in a batch."""
    flags = to_host([is_outlier(value) for value in values.values()])
    return dict(zip(values, flags, strict=True))


def is_outlier(value: Float[Tensor, "*tokens d_model"]) -> Bool[Tensor, "*tokens"]:
    """Tokens over ten times the median norm of these."""
    norms = value.float().norm(dim=-1)
    return norms > OUTLIER_FACTOR * norms.median()


def is_outlier_in_prompt(
    value: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Bool[Tensor, "batch pos"]:
    """Tokens over ten times the median norm of their own prompt's; padding is none."""
    norms = value.float().norm(dim=-1).masked_fill(~mask, math.nan)
    return norms > OUTLIER_FACTOR * norms.nanmedian(-1, keepdim=True).values


def mean_weights(
    x: Float[Tensor, "batch pos d_model"], mask: Bool[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos"]:
    """What each token counts for in the mean of its text: the same, but norm outliers nothing."""
    counted = mask & ~is_outlier_in_prompt(x, mask)
    return counted / counted.sum(-1, keepdim=True)


def activation_batches(
    model: TransformerBridge,
    sites: Sequence[Site],
    texts: Iterable[str],
    *,
    config: StreamConfig,
    start: int = 0,
) -> Iterator[ActivationBatch]:
    """`shuffled` buffers of one pass over the text, from batch number `start` on."""
    first = start // config.batches_per_buffer
    return shuffled(
        buffers(model, sites, texts, config=config, start=first), config=config, start=start
    )


def shuffled(
    ordered: Iterator[ActivationBatch], *, config: StreamConfig, start: int = 0
) -> Iterator[ActivationBatch]:
    """Batches of `config.batch_size` activations, the same tokens at every site.

    Each buffer is shuffled and handed out whole, `config.reuse` times over in different orders.
    What a batch holds depends on its number and the seed alone, not on the batches before, so
    training can be taken up at any batch: `ordered` begins with the buffer that batch `start`
    lies in. What does not fill a last batch is dropped.
    """
    number, skip = divmod(start, config.batches_per_buffer)
    for buffer in ordered:
        generator = torch.Generator().manual_seed(_mixed(config.seed, number))
        size = len(next(iter(buffer.values.values())))
        for _ in range(config.reuse):
            order = torch.randperm(size, generator=generator)
            for chunk in order.split(config.batch_size):
                if len(chunk) < config.batch_size:
                    continue
                if skip:
                    skip -= 1
                    continue
                yield _rows(buffer, chunk)
        number += 1
        # One buffer at a time is in memory: this one goes before the next is made.
        del buffer


def _mixed(seed: int, number: int) -> int:
    """A seed for each buffer, far from those of its neighbours."""
    return (seed * 1_000_003 + number * 7_919 + 12_345) % (1 << 62)


@torch.no_grad()
def _run(
    model: TransformerBridge, sites: Sequence[Site], tokens: Int[Tensor, "batch pos"]
) -> dict[Site, Float[Tensor, "tokens d_model"]]:
    batch = Batch(tokens=tokens, mask=torch.ones_like(tokens, dtype=torch.bool))
    with capture(model, sites) as seen:
        run_through(model, batch, max(site.layer for site in sites))
    rows = "batch pos d_model -> (batch pos) d_model"
    # Dictionaries are trained in float32 whatever the model computes in.
    return {s: rearrange(seen[s].float(), rows) for s in sites}


def _rows(batch: ActivationBatch, index: Int[Tensor, " tokens"]) -> ActivationBatch:
    place = index.to(next(iter(batch.values.values())).device)
    return ActivationBatch(
        {site: value[place] for site, value in batch.values.items()},
        {site: flag[index] for site, flag in batch.outlier.items()},
    )

"""What a training holds in memory beside the model, before it is begun."""

from collections.abc import Sequence

from hooked_qwen.notices import counted
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from saes.dictionary import DictionarySpec
from saes.training.config import TrainConfig
from saes.training.loop import BATCHES_FOR_MEAN

FLOAT32 = 4
"Bytes."
COPIES = 4
"Of each weight matrix: itself, its gradient, and the optimiser's two moments."


def buffer_bytes(sites: Sequence[Site], d_model: int, stream: StreamConfig) -> int:
    """The activations that are shuffled together, and those of the pass that is added to them."""
    one_pass = stream.blocks_per_pass * stream.block_length
    return FLOAT32 * len(sites) * d_model * (stream.buffer_size + one_pass)


def activation_bytes(
    sites: Sequence[Site], d_model: int, stream: StreamConfig, *, running: int = 0
) -> int:
    """The most activations that there are at once.

    Beside the buffer lie at first the batches that set the normalisation, later one batch, while
    the model, which takes `running` bytes for that, adds a pass to the next buffer.
    """
    one_token = FLOAT32 * len(sites) * d_model
    batch = one_token * stream.batch_size
    one_pass = one_token * stream.blocks_per_pass * stream.block_length
    later = batch + one_pass + running
    return one_token * stream.buffer_size + max(BATCHES_FOR_MEAN * batch, later)


def training_bytes(
    specs: Sequence[DictionarySpec], d_model: int, config: TrainConfig, stream: StreamConfig
) -> int:
    """Dictionaries with what trains them, activations, and the pre-activations of one batch."""
    sites = sorted({site for spec in specs for site in (spec.source, spec.target)})
    return weight_bytes(specs, d_model, config, stream) + activation_bytes(sites, d_model, stream)


def weight_bytes(
    specs: Sequence[DictionarySpec], d_model: int, config: TrainConfig, stream: StreamConfig
) -> int:
    """Dictionaries with what trains them, and the pre-activations of one batch."""
    copies = COPIES + (1 if config.average else 0)
    weights = 2 * copies * FLOAT32 * config.width * d_model * len(specs)
    one_batch = 2 * FLOAT32 * config.width * stream.batch_size
    return weights + one_batch


def require_training_memory(
    specs: Sequence[DictionarySpec],
    d_model: int,
    config: TrainConfig,
    stream: StreamConfig,
    memory: float | None,
) -> None:
    """Raise `ValueError` where a training takes more than `memory` GB beside the model."""
    require_memory(
        f"training {counted(len(specs), 'dictionary', 'dictionaries')}",
        training_bytes(specs, d_model, config, stream),
        memory,
        "train fewer layers at once, or narrower dictionaries",
    )


def require_memory(what: str, needed: int, memory: float | None, instead: str) -> None:
    """Raise `ValueError` where `needed` bytes are more than `memory` GB."""
    if memory is not None and needed > memory * 1e9:
        raise ValueError(
            f"{what} takes about {needed / 1e9:.3g} GB beside the model, more than the "
            f"{memory:g} GB of --memory: {instead}"
        )

"""What a training will take, told before it begins: memory, and time on this machine.

No model is loaded: its operations are counted from its configuration. How fast this machine does
them is measured on one layer with random weights, and a step on one dictionary of the width asked
for, on random activations.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import psutil
import torch

from circuits.runs.estimate_reading import disk_of
from circuits.runs.needs import Amount
from hooked_qwen.cost import ModelCost, measured_rate, seconds
from hooked_qwen.load import load_config, load_tokenizer, weight_files
from hooked_qwen.placement import AUTO, Placement, find_device, name_of
from hooked_qwen.sites import Site
from hooked_qwen.stream import ActivationBatch, StreamConfig
from saes.dictionary import DictionarySpec
from saes.evaluation.metrics import BLOCKS_PER_PASS
from saes.training.config import TrainConfig
from saes.training.harvest import Harvest, not_faster
from saes.training.loop import BATCHES_FOR_MEAN
from saes.training.memory import (
    FLOAT32,
    activation_bytes,
    require_training_memory,
    weight_bytes,
)
from saes.training.recorded_step import recorder
from saes.training.trainer import DictionaryTrainer

JUDGED_ON, BLOCK = 2048, 128
"Tokens of held-out text that dictionaries are judged on, and those of a block."
SPLICED = 3
"Times that the model runs behind a dictionary's site while it is judged: spliced, zero, mean."
LOGITS = 4
"Copies of a pass's logits there are at once while a dictionary is judged."


@dataclass(frozen=True, kw_only=True)
class TrainingEstimate:
    """What a training is expected to take."""

    device: torch.device
    dictionaries: int
    tokens: int
    "that the model reads; none from a cache"
    memory: tuple[Amount, ...]
    "in bytes; those of the last two are not there at once"
    times: tuple[Amount, ...]
    "in seconds"
    assumed: tuple[str, ...]
    "what could not be known"

    @property
    def peak(self) -> float | int:
        """Bytes at the most, on the host those of the process too."""
        *always, training, judging = (item.amount for item in self.memory)
        return sum(always) + max(training, judging)

    @property
    def seconds(self) -> float:
        """Of the whole command."""
        return sum(item.amount for item in self.times)


def estimate_training(
    specs: Sequence[DictionarySpec],
    *,
    model: str,
    config: TrainConfig,
    stream: StreamConfig,
    harvest: Harvest = "auto",
    cached: bool = False,
    placement: Placement,
) -> TrainingEstimate:
    """What `circuits train` with these arguments will take on this machine.

    `cached` activations are read from disk; the model then only judges.

    Raises `ValueError` as `train` would, for a model that it cannot find and where it takes more
    than the memory of `placement`.
    """
    began = time.time() - psutil.Process().create_time()
    device = find_device(placement.device or AUTO)
    cost = ModelCost(load_config(model), placement, name=model)
    require_training_memory(specs, cost.d_model, config, stream, placement.memory)
    files = weight_files(model)
    rounded = not cached and _is_rounded(cost, harvest, device)
    steps = max(1, config.tokens // stream.batch_size)
    read = 0 if cached else ceil(steps / stream.batches_per_buffer) * _buffer(stream)
    start = time.perf_counter()
    load_tokenizer(model)
    tokenizing = time.perf_counter() - start
    stored = sum(path.stat().st_size for path in files) or cost.weights
    opening = (stored + cost.weights) / disk_of(files).read if files else 0.0
    times = (
        Amount("Python and its libraries", began),
        Amount("tokenizer", tokenizing),
        Amount("the model's weights", opening),
        *_reading(cost, specs, stream, read, rounded, device),
        _training(cost, specs, config, stream, steps, device),
        _judging(cost, specs, device),
    )
    # Only now: what was timed has loaded the libraries, and their kernels, that a training loads.
    process = psutil.Process().memory_info().rss if device.type == "cpu" else 0
    return TrainingEstimate(
        device=device,
        dictionaries=len(specs),
        tokens=read,
        memory=_memory(cost, specs, config, stream, rounded, process),
        times=times,
        assumed=tuple(_assumed(model, bool(files), rounded, harvest, cached, device)),
    )


def _buffer(stream: StreamConfig) -> int:
    """Tokens of text that fill a buffer."""
    return stream.passes * stream.block_length * stream.blocks_per_pass


def _is_rounded(cost: ModelCost, harvest: Harvest, device: torch.device) -> bool:
    """Whether the model computes in bfloat16 while it is learned from."""
    if cost.dtype != torch.float32 or harvest != "auto":
        return harvest == "bfloat16" and cost.dtype == torch.float32
    width = getattr(cost.config, "intermediate_size", 0)
    return not_faster(cost.d_model * width, device) is None


def _memory(
    cost: ModelCost,
    specs: Sequence[DictionarySpec],
    config: TrainConfig,
    stream: StreamConfig,
    rounded: bool,
    process: int,
) -> tuple[Amount, ...]:
    sites = sorted({site for spec in specs for site in (spec.source, spec.target)})
    one_pass = cost.layers(stream.blocks_per_pass, stream.block_length)[0].saved
    held = weight_bytes(specs, cost.d_model, config, stream)
    activations = activation_bytes(sites, cost.d_model, stream, running=one_pass)
    weights = 2 * FLOAT32 * config.width * cost.d_model * len(specs)
    logits = LOGITS * FLOAT32 * BLOCKS_PER_PASS * BLOCK * cost.vocabulary
    return (
        Amount("this process, once it has timed what follows", process),
        Amount("model", cost.weights),
        Amount("its copy in bfloat16", cost.weights // 2 if rounded else 0),
        Amount(
            "while training",
            held + activations,
            f"{_gb(held)} dictionaries with gradients and moments, {_gb(activations)} activations: "
            "those to shuffle, batches, and a pass of the model",
        ),
        Amount("while judging", weights + logits, f"{_gb(logits)} logits"),
    )


def _gb(size: float | int) -> str:
    return f"{size / 1e9:.2g} GB"


def _reading(
    cost: ModelCost,
    specs: Sequence[DictionarySpec],
    stream: StreamConfig,
    read: int,
    rounded: bool,
    device: torch.device,
) -> list[Amount]:
    """Seconds in which the model reads the text, as far as the deepest site."""
    if not read:
        return []
    deepest = max(site.layer for spec in specs for site in (spec.source, spec.target)) + 1
    same = ModelCost(cost.config, Placement(), name=cost.name)
    same.dtype = torch.bfloat16 if rounded else cost.dtype
    shape = stream.blocks_per_pass, stream.block_length
    rate = measured_rate(same, str(device), *shape)
    one = sum(layer.forward for layer in cost.layers(*shape)[:deepest])
    passes = read / (shape[0] * shape[1])
    note = f"{read:,} tokens, {deepest} of {cost.n_layers} layers in {name_of(same.dtype)}"
    return [Amount("the model reads", passes * one / rate.forward, note)]


def _training(
    cost: ModelCost,
    specs: Sequence[DictionarySpec],
    config: TrainConfig,
    stream: StreamConfig,
    steps: int,
    device: torch.device,
) -> Amount:
    """Seconds of all steps of all dictionaries, by one of them on random activations."""
    spec = specs[0]
    sites = {spec.source, spec.target}
    batch = _random_batch(sites, cost.d_model, stream.batch_size, device)
    few = [_random_batch(sites, cost.d_model, stream.batch_size, device)] * BATCHES_FOR_MEAN
    trainer = DictionaryTrainer.begin(spec, few, config, config.seed, record=recorder(device))

    def step() -> torch.Tensor:
        trainer.train_step(batch, config.peak_rate, 0)
        return trainer.watched.shown["loss"]

    taken = len(specs) * steps * seconds(step)
    return Amount("training", taken, f"{steps:,} steps of each dictionary")


def _random_batch(
    sites: set[Site], d_model: int, tokens: int, device: torch.device
) -> ActivationBatch:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, d_model, generator=generator).to(device)
    none = torch.zeros(tokens, dtype=torch.bool)
    return ActivationBatch(dict.fromkeys(sites, x), dict.fromkeys(sites, none))


def _judging(cost: ModelCost, specs: Sequence[DictionarySpec], device: torch.device) -> Amount:
    """Seconds in which dictionaries are judged: the plain run, and runs behind each site."""
    shape = BLOCKS_PER_PASS, BLOCK
    rate = measured_rate(cost, str(device), *shape)
    layers = [layer.forward for layer in cost.layers(*shape)]
    unembedding = 2 * shape[0] * shape[1] * cost.d_model * cost.vocabulary
    behind = [sum(layers[spec.target.layer :]) + unembedding for spec in specs]
    # The plain run is done twice: for the means of the sites, and for the reference.
    plain = 2 * sum(layers) + unembedding
    passes = JUDGED_ON / (shape[0] * shape[1])
    note = f"{JUDGED_ON:,} tokens of held-out text"
    return Amount("judging", passes * (plain + SPLICED * sum(behind)) / rate.forward, note)


def _assumed(
    model: str, here: bool, rounded: bool, harvest: Harvest, cached: bool, device: torch.device
) -> list[str]:
    said = []
    if not here:
        said.append(
            f"the weights of {model} are not here yet: to download or to dequantise them comes "
            "on top"
        )
    if rounded and harvest == "auto":
        said.append(
            "whether bfloat16 is exact enough to learn from is measured when training begins"
        )
    if cached:
        said.append("reading the cache is not counted")
    if device.type == "cpu":
        said.append("memory that the allocator keeps of what was let go comes on top")
    return said

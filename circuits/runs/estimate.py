"""What a discovery will take, told before it begins: memory, and time on this machine.

Nothing is loaded but the tokenizer: the model is known from its configuration, dictionaries from
their files' headers. Time is what is counted over what this machine does in a second, measured on
one layer of the model with random weights, on one dictionary, and on the files themselves.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from circuits.discovery.config import DiscoverConfig
from circuits.prompts import EncodedPrompts, Prompt, WhenUnfit, encode_prompts
from circuits.runs.estimate_reading import Disk, dictionary_times, disk_of
from circuits.runs.needs import (
    READS_OF_A_BATCH,
    USUAL_K,
    Amount,
    DiscoverySize,
    MemoryNeeds,
    memory_of,
    operations_of,
)
from circuits.runs.needs_replacement import replacement_memory, replacement_operations
from hooked_qwen.cost import ModelCost, Rate, measured_rate, seconds
from hooked_qwen.load import load_config, load_tokenizer, weight_files
from hooked_qwen.placement import AUTO, Placement, find_device
from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.formats.shapes import DictionaryShape, shape_of
from saes.suite import MlpChoice, find, load_suite

MEASURED_FEATURES = 8192
"Width of the dictionary whose encoding is timed, at most."


@dataclass(frozen=True)
class Estimate:
    """What a discovery is expected to take."""

    device: torch.device
    task: DiscoverySize
    memory: MemoryNeeds
    "on the device"
    process: int
    "bytes of the process with all its libraries, before anything is loaded"
    loading: int
    "bytes on the host while the model is loaded: its files, mapped, and itself"
    times: tuple[Amount, ...]
    "in seconds"
    assumed: tuple[str, ...]
    "what could not be known"

    @property
    def host_peak(self) -> float | int:
        """Bytes of the host's memory at most."""
        work = self.memory.total if self.device.type == "cpu" else 0
        return self.process + max(work, self.loading)

    @property
    def seconds(self) -> float:
        """Of the whole command."""
        return sum(item.amount for item in self.times)


def estimate_discovery(
    prompts: Sequence[Prompt],
    *,
    model: str,
    dictionaries: str,
    config: DiscoverConfig,
    mlp: MlpChoice = "sae",
    text: int = 0,
    placement: Placement,
) -> Estimate:
    """What `circuits discover` with these arguments will take on this machine.

    `text` are the tokens of running text that are looked through for examples.

    Raises `ValueError` as `discover` would for inputs that it cannot read, and for dictionaries
    of a model of another width.
    """
    known = read_inputs(
        prompts,
        model=model,
        dictionaries=dictionaries,
        config=config,
        mlp=mlp,
        text=text,
        placement=placement,
    )
    cost, shapes, task, device = known.model, known.shapes, known.task, known.device
    rate = measured_rate(cost, str(device), task.points * task.batch, task.run)
    again = READS_OF_A_BATCH * task.batches
    times = (
        *known.opening(rate.hashed),
        *dictionary_times(shapes, again, placement.memory, known.disk, device),
        *_computing(cost, shapes, task, placement.memory, rate, device),
    )
    return known.estimate(_memory(cost, shapes, task, placement.memory), times)


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a command's inputs without loading them."""

    began: float
    "seconds since the process was started"
    device: torch.device
    model: ModelCost
    shapes: Sequence[DictionaryShape]
    task: DiscoverySize
    files: Sequence[Path]
    "of the model"
    disk: Disk
    tokenizing: float
    "seconds in which the tokenizer was read"
    process: int
    "bytes of the process by then"

    def opening(self, hashed: float) -> tuple[Amount, ...]:
        """Seconds until the model is there, where so many bytes of it a second are hashed."""
        weights = self.model.weights
        return (
            Amount("Python and its libraries", self.began),
            Amount("tokenizer", 2 * self.tokenizing),
            Amount("the model's weights", (self._stored + weights) / self.disk.read),
            Amount("their hash", weights / hashed),
        )

    @property
    def _stored(self) -> int:
        return sum(path.stat().st_size for path in self.files) or self.model.weights

    def estimate(self, memory: MemoryNeeds, times: Sequence[Amount], *said: str) -> Estimate:
        """All together, with what else was `said` of what could not be known."""
        return Estimate(
            device=self.device,
            task=self.task,
            memory=memory,
            process=self.process,
            loading=self.model.weights + self._stored,
            times=tuple(times),
            assumed=(*_assumed(self.model.name, self.files, self.shapes), *said),
        )


def read_inputs(
    prompts: Sequence[Prompt],
    *,
    model: str,
    dictionaries: str,
    config: DiscoverConfig,
    mlp: MlpChoice = "sae",
    text: int = 0,
    unfit: WhenUnfit = "refuse",
    placement: Placement,
) -> Known:
    """Read the model's configuration, its tokenizer, and the headers of the dictionaries."""
    began = time.time() - psutil.Process().create_time()
    device = find_device(placement.device or AUTO)
    cost = ModelCost(load_config(model), placement, name=model)
    shapes = shapes_of(dictionaries, cost.d_model, mlp)
    if config.method == "replacement":
        shapes = [shape for shape in shapes if shape.source.kind == "mlp_in"]
    start = time.perf_counter()
    tokenizer = load_tokenizer(model)
    tokenizing = time.perf_counter() - start
    encoded = encode_prompts(prompts, tokenizer, positions="sum", bos=config.bos, unfit=unfit)
    files = weight_files(model)
    return Known(
        began=began,
        device=device,
        model=cost,
        shapes=shapes,
        task=task_of(encoded, config, text),
        files=files,
        disk=disk_of([*files, *_weights_of(dictionaries)]),
        tokenizing=tokenizing,
        process=psutil.Process().memory_info().rss,
    )


def _memory(
    cost: ModelCost, shapes: Sequence[DictionaryShape], task: DiscoverySize, memory: float | None
) -> MemoryNeeds:
    by_method = {"sparse-feature": memory_of, "replacement": replacement_memory}
    return by_method[task.config.method](cost, shapes, task, memory)


def shapes_of(dictionaries: str, d_model: int, mlp: MlpChoice) -> list[DictionaryShape]:
    """The dictionaries that a run takes, by their files' headers."""
    suite = load_suite(dictionaries, mlp=mlp)
    return [
        shape_of(entry, d_model)
        for entry in find(dictionaries).entries
        if suite.reads_of(entry.node_name) == entry.reads
    ]


def _weights_of(dictionaries: str) -> list[Path]:
    return [entry.fetch()[0] for entry in find(dictionaries).entries[:1]]


def task_of(prompts: EncodedPrompts, config: DiscoverConfig, text: int) -> DiscoverySize:
    """The sizes of a prompt set, padded on the left as it will be run."""
    clean, patch = prompts.clean, prompts.patch
    first = 0
    if patch is not None and config.reference == "patch":
        differs = (clean.tokens != patch.tokens).any(0).tolist()
        first = differs.index(True) if True in differs else len(differs) - 1
    return DiscoverySize(
        prompts=len(prompts),
        tokens=clean.tokens.shape[1],
        first=first,
        patched=patch is not None,
        text=text,
        config=config,
    )


def _computing(
    model: ModelCost,
    shapes: Sequence[DictionaryShape],
    task: DiscoverySize,
    memory: float | None,
    rate: Rate,
    device: torch.device,
) -> list[Amount]:
    """Seconds of all that is computed, by what is measured here."""
    todo = (
        replacement_operations(model, shapes, task, memory)
        if task.config.method == "replacement"
        else operations_of(model, shapes, task, memory)
    )
    tokens = min(task.batch * task.tokens, 1024)
    features = min(max(s.features for s in shapes), MEASURED_FEATURES)
    encoding = encoding_rate(model, features, tokens, device)
    rates = (
        (todo.forward, rate.forward),
        (todo.both, rate.both),
        (todo.edges, rate.backward),
        (todo.encoded, encoding),
        (todo.products, encoding),
    )
    return [
        replace(item, amount=item.amount / speed)
        for items, speed in rates
        for item in items
        if item.amount
    ]


def encoding_rate(model: ModelCost, features: int, tokens: int, device: torch.device) -> float:
    """Operations a second of a dictionary's encoder, the choice of its features included."""
    dictionary = random_dictionary(model, features, device)
    x = torch.randn(tokens, model.d_model, generator=torch.Generator().manual_seed(1)).to(device)
    once = seconds(lambda: dictionary.encode(x).value)
    return 2 * tokens * features * model.d_model / once


def random_dictionary(
    model: ModelCost, features: int, device: torch.device, k: int = USUAL_K
) -> SparseDictionary:
    """Random features of the stream after the first layer, `k` on at a token."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(features, model.d_model, generator=generator)
    site = Site("resid_post", 0)
    spec = DictionarySpec(source=site, target=site, k=min(k, features))
    bias = torch.zeros(features), torch.zeros(model.d_model)
    weights = {"W_enc": rows, "W_dec": rows, "b_enc": bias[0], "b_dec": bias[1]}
    return SparseDictionary(spec, weights).to(device)


def _assumed(model: str, files: Sequence[Path], shapes: Sequence[DictionaryShape]) -> list[str]:
    said = []
    if not files:
        said.append(
            f"the weights of {model} are not here yet: to download or to dequantise them comes "
            "on top"
        )
    if unknown := [s.name for s in shapes if s.k is None]:
        said.append(
            f"how many features are on at a token is not in the files of {', '.join(unknown[:3])}"
            f"{' and others' if len(unknown) > 3 else ''}: {USUAL_K} are counted"
        )
    return said

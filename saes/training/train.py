"""What a user starts: training a suite, and keeping activations to train on."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.notices import counted
from hooked_qwen.percents import percent
from hooked_qwen.progress import Report, silent
from hooked_qwen.shards import Cache, write_cache
from hooked_qwen.sites import Site
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import Corpus
from hooked_qwen.threads import fit_threads
from saes.dictionary import DictionarySpec
from saes.evaluation.metrics import Quality, held_out_blocks
from saes.training.config import TrainConfig
from saes.training.harvest import Harvest
from saes.training.held_out import HELD_OUT_CHARACTERS, held_out_text, training_text
from saes.training.loop import Progress
from saes.training.memory import buffer_bytes, require_memory, require_training_memory
from saes.training.run import RunOptions, train_suite

NOTE_EVERY = 1.0
"Seconds between two readings of the loss for the progress bar."


def train(
    model: TransformerBridge,
    specs: Sequence[DictionarySpec],
    texts: Corpus | None,
    out: Path,
    *,
    config: TrainConfig,
    stream: StreamConfig,
    options: RunOptions | None = None,
    cache: Path | None = None,
    harvest: Harvest = "auto",
    memory: float | None = None,
    report: Report = silent,
    dtype: torch.dtype = torch.float32,
) -> list[Quality]:
    """Train a suite into `out` and judge it on held-out text; with a cache, on the cache's.

    Raises `ValueError` where that takes more than `memory` GB beside the model.
    """
    require_training_memory(specs, model.cfg.d_model, config, stream, memory)
    fit_threads(model, width=config.width)
    report("first activations", 0, 1)
    return train_suite(
        model,
        specs,
        texts,
        out,
        config=config,
        stream=stream,
        options=options,
        cache=None if cache is None else Cache.open(cache),
        harvest=harvest,
        report=_telling(report),
        report_stage=report,
        dtype=dtype,
    )


def _telling(report: Report) -> Callable[[Progress], None]:
    """Tells `report` of each step; reads the loss once a second, as that waits for the device."""
    note, last = "", -math.inf

    def step(now: Progress) -> None:
        nonlocal note, last
        if time.monotonic() - last >= NOTE_EVERY or now.step == now.steps:
            note = (
                f"loss {now.loss:.3f}, L0 {now.l0:.0f}, FVU {now.fvu:.3f}, dead {percent(now.dead)}"
            )
            last = time.monotonic()
        report("training", now.step, now.steps, f"{note}, {now.tokens_per_second:,.0f}/s")

    return step


def cache_activations(
    model: TransformerBridge,
    sites: Sequence[Site],
    texts: Corpus,
    out: Path,
    *,
    tokens: int,
    stream: StreamConfig,
    half: bool = False,
    memory: float | None = None,
    report: Report = silent,
) -> Cache:
    """Write activations of the text to train on, and the tokens of the part that is held out.

    Raises `ValueError` where a buffer of all sites takes more than `memory` GB.
    """
    require_memory(
        f"a buffer of {counted(len(sites), 'site')}",
        buffer_bytes(sites, model.cfg.d_model, stream),
        memory,
        "cache fewer sites at once",
    )
    return write_cache(
        model,
        sites,
        training_text(texts),
        out,
        config=stream,
        tokens=tokens,
        dtype=torch.bfloat16 if half else torch.float32,
        held_out=held_out_blocks(held_out_text(texts()), model, tokens=HELD_OUT_CHARACTERS),
        report=lambda done, total: report("caching", done, total),
    )

"""A whole training run: text in, a folder of dictionaries with their quality out.

OUT/checkpoint.safetensors      while it trains: what a resumed run goes on from
OUT/training.jsonl              one line every 50 steps
OUT/suite.json, OUT/NAME/...    the dictionaries, all at once when all is done
"""

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.files import build_folder_atomically, check_not_file
from hooked_qwen.identity import identity
from hooked_qwen.notices import notify
from hooked_qwen.placement import name_of
from hooked_qwen.precision import computed_in, model_precision
from hooked_qwen.shards import Cache
from hooked_qwen.sites import Site
from hooked_qwen.stream import ActivationBatch, StreamConfig, activation_batches, shuffled
from hooked_qwen.texts import Corpus
from hooked_qwen.texts_read import TextsRead
from saes.dictionary import DictionarySpec
from saes.evaluation.metrics import Quality, evaluate, held_out_blocks
from saes.formats import ours
from saes.training.checkpoint import Checkpointer, read_snapshot
from saes.training.config import TrainConfig, record_of
from saes.training.harvest import Harvest, Harvesting, choose_harvest
from saes.training.held_out import held_out_text, training_text
from saes.training.log import LOG, LOGS, open_log
from saes.training.loop import Progress, Trained, fit

CHECKPOINT = ours.CHECKPOINT


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What does not change the result of a run."""

    resume: bool = False
    "go on from the checkpoint in the folder, if there is one"
    checkpoint_every: float = 60.0
    "seconds"
    logs: tuple[str, ...] = ()
    "besides training.jsonl: tensorboard, wandb"


def train_suite(
    model: TransformerBridge,
    specs: Sequence[DictionarySpec],
    texts: Corpus | None,
    out: Path,
    *,
    config: TrainConfig,
    stream: StreamConfig,
    options: RunOptions | None = None,
    cache: Cache | None = None,
    harvest: Harvest = "auto",
    evaluation_tokens: int = 2048,
    dtype: torch.dtype = torch.float32,
    report: Callable[[Progress], None] | None = None,
    report_stage: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> list[Quality]:
    """Train a dictionary for each of `specs`, judge them on held-out text, write them to `out`.

    `texts` opens the corpus from its start. Its first 40,000 characters are held out; the rest
    is read as often as `config.tokens` needs. Activations come from the model as it reads, or
    from `cache`, which also has text to judge on where `texts` is None. A run that was cut off
    goes on from its last checkpoint with `options.resume`, to the same weights, on a CPU bit for
    bit. Dictionaries that are in `out` already stay until the new ones take their place.

    The model computes in the precision `harvest` while it is learned from, and in its own when
    dictionaries are judged.

    Raises `ValueError` when the checkpoint is of a run with other settings, another model or
    other text, and where there is nothing to train on or to judge on.
    """
    options = options or RunOptions()
    sites = sorted({site for spec in specs for site in (spec.source, spec.target)})
    blocks = _judged_on(texts, cache, model, evaluation_tokens)
    harvesting = _harvesting(model, sites, blocks, cache, harvest)
    what = _identity(model, specs, config, stream, cache, blocks, harvesting)
    place = out / CHECKPOINT
    after, before = None, None
    if options.resume and place.exists():
        after, before = read_snapshot(place, what)
    out.mkdir(parents=True, exist_ok=True)
    start = after.step if after else 0
    read = None
    if cache is None:
        assert texts is not None
        read = TextsRead(training_text(texts), before=before)
        source = activation_batches(model, sites, read, config=stream, start=start)
    else:
        source = from_cache(cache, sites, model, stream, start)
    log_of_run = open_log(out, options.logs, after_step=start)
    with computed_in(model, getattr(torch, harvesting.dtype)), log_of_run as log:

        def tell(now: Progress) -> None:
            log(now)
            if report is not None:
                report(now)

        trained = fit(
            source,
            specs,
            config=config,
            report=tell,
            report_calibration=lambda done, total: report_stage("thresholds", done, total),
            keep=Checkpointer(
                place,
                options.checkpoint_every,
                what,
                position=lambda: read.position if read is not None else None,
            ),
            after=after,
        )
    dictionaries = [t.dictionary for t in trained]
    quality = evaluate(
        model,
        dictionaries,
        blocks,
        report=lambda done, total: report_stage("evaluating", done, total),
    )
    report_stage("writing", 0, 1)
    build_folder_atomically(
        out,
        lambda partial: _write(
            model, trained, quality, stream, harvesting, partial, dtype, logs=out
        ),
    )
    report_stage("writing", 1, 1)
    return quality


def _judged_on(
    texts: Corpus | None, cache: Cache | None, model: TransformerBridge, tokens: int
) -> Int[Tensor, "blocks pos"]:
    """Held-out tokens, of the text or, without one, of the cache."""
    if texts is not None:
        return held_out_blocks(held_out_text(texts()), model, tokens=tokens)
    if cache is None:
        raise ValueError("there is nothing to train on: give a text, or activations in a cache")
    blocks = cache.held_out()
    if blocks is None:
        raise ValueError(
            f"{cache.folder} was written without text to judge on: give a text too (--text)"
        )
    return blocks[: max(1, tokens // blocks.shape[1])]


def _harvesting(
    model: TransformerBridge,
    sites: Sequence[Site],
    blocks: Int[Tensor, "blocks pos"],
    cache: Cache | None,
    asked: Harvest,
) -> Harvesting:
    """What to harvest in; it is said where that was measured."""
    if cache is not None:
        if asked != "auto":
            raise ValueError(
                f"activations come from {cache.folder}, in the precision that they were written "
                f"in: leave out --harvest {asked}"
            )
        own = name_of(model_precision(model))
        return Harvesting(dtype=own, why="activations come from a cache", errors={})
    chosen = choose_harvest(model, sites, blocks, asked)
    if chosen.errors:
        notify(f"activations are harvested in {chosen.dtype}: {chosen.why}")
    return chosen


def from_cache(
    cache: Cache, sites: list[Site], model: TransformerBridge, stream: StreamConfig, start: int
) -> Iterator[ActivationBatch]:
    """Batches from number `start` on, of activations on disk."""
    first = start // stream.batches_per_buffer
    ordered = cache.buffers(sites, model=model, config=stream, start=first)
    return shuffled(ordered, config=stream, start=start)


def check_place(out: Path) -> None:
    """Raise `ValueError` when a run that a user starts would lose what is in `out`."""
    check_not_file(out)
    if not out.exists():
        return
    if (out / ours.SUITE).exists():
        raise ValueError(f"{out} is not empty, it holds dictionaries: choose another folder")
    strangers = [p.name for p in out.iterdir() if not p.name.startswith(".")]
    if any(name not in (LOG, CHECKPOINT, *LOGS) for name in strangers):
        raise ValueError(f"{out} is not empty: choose another folder, or remove it first")


def cut_off(out: Path) -> bool:
    """Whether `out` holds a checkpoint of a run that did not end."""
    return (out / CHECKPOINT).exists()


def _identity(
    model: TransformerBridge,
    specs: Sequence[DictionarySpec],
    config: TrainConfig,
    stream: StreamConfig,
    cache: Cache | None,
    judged_on: Int[Tensor, "blocks pos"],
    harvesting: Harvesting,
) -> dict[str, Any]:
    """What makes two runs the same run; the text after what is held out is told by `TextsRead`."""
    of_specs = [f"{s.name} {s.architecture} k={s.k} skip={s.skip}" for s in specs]
    precision = str(model.cfg.dtype).removeprefix("torch.")
    about = {"model hash": identity(model), "model precision": precision}
    about |= {"dictionaries": of_specs, "threads": _threads()}
    about |= {"device": next(model.parameters()).device.type}
    about |= {"held-out tokens": sha256(judged_on.cpu().numpy().tobytes()).hexdigest()[:16]}
    about |= {"cache": None if cache is None else cache.hash}
    about |= {"harvested in": harvesting.dtype}
    return about | record_of(config) | {f"stream {k}": v for k, v in asdict(stream).items()}


def _threads() -> int:
    # Sums are added up in another order on another number of threads.
    return torch.get_num_threads()


def _write(
    model: TransformerBridge,
    trained: Sequence[Trained],
    quality: Sequence[Quality],
    stream: StreamConfig,
    harvesting: Harvesting,
    folder: Path,
    dtype: torch.dtype,
    *,
    logs: Path,
) -> None:
    about_model = {
        "name": model.cfg.model_name,
        "hash": identity(model),
        "d_model": model.cfg.d_model,
    }
    for one, figures in zip(trained, quality, strict=True):
        card = ours.Card(
            model=about_model,
            training=one.record | {"stream": asdict(stream), "harvest": harvesting.record()},
            metrics=asdict(figures),
        )
        spec = one.dictionary.spec
        ours.save_dictionary(one.dictionary, folder / spec.name, card=card, dtype=dtype)
    ours.save_suite_index(folder, [t.dictionary.spec.name for t in trained])
    shutil.copyfile(logs / LOG, folder / LOG)
    for name in LOGS:
        if (logs / name).is_dir():
            shutil.copytree(logs / name, folder / name, symlinks=True)

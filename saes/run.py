"""A whole training run: text in, a folder of dictionaries with their quality out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.files import build_folder_atomically
from hooked_qwen.stream import StreamConfig, activation_batches
from saes.dictionary import DictionarySpec
from saes.formats import ours
from saes.metrics import Quality, evaluate, held_out_blocks
from saes.training import Progress, TrainConfig, Trained, fit

HELD_OUT_CHARACTERS = 40_000


def train_suite(
    model: TransformerBridge,
    specs: Sequence[DictionarySpec],
    texts: Callable[[], Iterator[str]],
    out: Path,
    *,
    config: TrainConfig,
    stream: StreamConfig,
    evaluation_tokens: int = 2048,
    dtype: torch.dtype = torch.float32,
    report: Callable[[Progress], None] | None = None,
    report_evaluation: Callable[[int, int], None] = lambda done, total: None,
) -> list[Quality]:
    """Train a dictionary for each of `specs`, judge them on held-out text, write them to `out`.

    `texts` opens the corpus from its start. Its first 40,000 characters are held out; the rest
    is read as often as `config.tokens` needs. `out` appears only when everything is in it.
    """
    sites = sorted({site for spec in specs for site in (spec.source, spec.target)})
    blocks = held_out_blocks(_held_out(texts()), model, tokens=evaluation_tokens)
    batches = activation_batches(model, sites, _training_text(texts), config=stream)
    trained = fit(batches, specs, config=config, report=report)
    dictionaries = [t.dictionary for t in trained]
    quality = evaluate(model, dictionaries, blocks, report=report_evaluation)
    build_folder_atomically(
        out, lambda partial: _write(model, trained, quality, stream, partial, dtype)
    )
    return quality


def _write(
    model: TransformerBridge,
    trained: Sequence[Trained],
    quality: Sequence[Quality],
    stream: StreamConfig,
    folder: Path,
    dtype: torch.dtype,
) -> None:
    about_model = {"name": model.cfg.model_name, "d_model": model.cfg.d_model}
    for one, figures in zip(trained, quality, strict=True):
        card = ours.Card(
            model=about_model,
            training=one.record | {"stream": asdict(stream)},
            metrics=asdict(figures),
        )
        spec = one.dictionary.spec
        ours.save_dictionary(one.dictionary, folder / spec.name, card=card, dtype=dtype)
    ours.save_suite_index(folder, [t.dictionary.spec.name for t in trained])


def _training_text(texts: Callable[[], Iterator[str]]) -> Iterator[str]:
    """What is not held out, again and again; raises `ValueError` when that is nothing."""
    while True:
        rest = _after_held_out(texts())
        first = next(rest, None)
        if first is None:
            raise ValueError(
                f"the text has at most {HELD_OUT_CHARACTERS:,} characters, which are held out "
                "for judging: give more text to train on"
            )
        yield first
        yield from rest


def _held_out(texts: Iterator[str]) -> Iterator[str]:
    taken = 0
    for text in texts:
        if taken >= HELD_OUT_CHARACTERS:
            return
        yield text[: HELD_OUT_CHARACTERS - taken]
        taken += len(text)


def _after_held_out(texts: Iterator[str]) -> Iterator[str]:
    taken = 0
    for text in texts:
        rest = text[max(0, HELD_OUT_CHARACTERS - taken) :]
        taken += len(text)
        if rest:
            yield rest

"""Detectors of a few features made from labelled texts, and run: opened, done, written."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.features.detectors import classified, detected, read_detector
from circuits.features.named import Named
from circuits.graph import write_json
from circuits.runs.overwrite import MADE_FROM, check_record, digest
from circuits.suites import feature_names, load_model
from hooked_qwen.identity import identity
from hooked_qwen.notices import notify
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import texts_of
from saes.evaluation.probing import read_labelled
from saes.scope.classify import Parts, only, parts_of
from saes.scope.detector import Across
from saes.suite import MlpChoice, hash_of, load_suite


def classify(
    dictionaries: str,
    model: str = "bundled",
    *,
    labelled: Path,
    positive: str,
    test: Path | None = None,
    texts: int | None = None,
    mlp: MlpChoice = "sae",
    across: Across = "one",
    seed: int = 0,
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """A detector of texts labelled `positive` among `labelled`, judged beside simple methods.

    Figures are of texts that chose nothing, of the file `test` where it is given. With `texts` only
    so many of each kind are learned from. Its features are of one dictionary, or of several.
    The detector goes to the file `out`.

    Raises `ValueError` where there are too few texts of a kind, and where `out` holds something
    else, unless by `force`.
    """
    own = read_labelled(labelled)
    others = [] if test is None else read_labelled(test)
    every = [*own, *others]
    is_positive = torch.tensor([text.label == positive for text in every])
    _check_labels([text.label for text in every], positive)
    parts = _parts(is_positive, len(own), bool(others), seed)
    if (judged := is_positive[parts.test]).all() or not judged.any():
        raise ValueError(f"there is nothing to judge on: {test} has texts of one kind only")
    if texts is not None:
        parts = only(parts, is_positive, texts, seed=seed)
    suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
    source = {
        "labelled": digest(*(f"{t.label} {t.text}" for t in every)),
        "positive": positive,
        "dictionaries": hash_of(dictionaries),
        "mlp": mlp,
        **({} if across == "one" else {"across": across}),
        "texts": texts,
        "seed": seed,
    }
    if out is not None:
        check_record(out, source, force=force)
    loaded = load_model(model, report, placement)
    suite.notify_of_another_model(loaded)
    record = classified(
        loaded,
        suite,
        [text.text for text in every],
        is_positive,
        parts,
        Named(loaded, suite, feature_names(dictionaries)),
        across=across,
        seed=seed,
        report=report,
    )
    record = {**record, "positive": positive, MADE_FROM: source, "model_hash": identity(loaded)}
    if out is not None:
        write_json(record, out)
    return record


def detect(
    detector: Path,
    dictionaries: str,
    model: str = "bundled",
    *,
    text: Sequence[str],
    out: Path | None = None,
    placement: Placement = ANYWHERE,
) -> Iterator[dict[str, Any]]:
    """What a detector says of each text of a stream, one record each; also a line each in `out`.

    `text` are sources as `--text` takes them.

    Raises `ValueError` for a file that is no detector, and for other dictionaries than its own.
    """
    found = read_detector(detector)
    if hash_of(dictionaries) != found.dictionaries:
        raise ValueError(
            f"{detector} was made with other dictionaries (hash {found.dictionaries}) than those "
            f"at {dictionaries}: give the same ones"
        )
    needed = {node.site for node in found.detector.nodes}
    suite = load_suite(dictionaries, mlp=found.mlp, memory=placement.memory)
    suite = suite.exchanging([name for name in suite if name not in needed], {})
    loaded = load_model(model, placement=placement)
    if found.model != identity(loaded):
        notify(f"{detector} was made with another model than {model}: its scores may mean less")
    records = detected(loaded, suite, texts_of(text)(), found)
    yield from records if out is None else _written(records, out)


def _written(records: Iterable[dict[str, Any]], out: Path) -> Iterator[dict[str, Any]]:
    """The same records, which are in the file `out` once the last was taken, and not before."""
    partial = out.with_name(f"{out.name}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            for record in records:
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                yield record
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)


def _check_labels(labels: Sequence[str], positive: str) -> None:
    if positive not in labels:
        there = ", ".join(sorted(set(labels))[:5])
        raise ValueError(f"no text is labelled {positive!r}: the labels are {there}")


def _parts(positive: Bool[Tensor, " texts"], own: int, tested_apart: bool, seed: int) -> Parts:
    """Parts of the labelled texts; where others are for testing none of these is."""
    if not tested_apart:
        return parts_of(positive, seed=seed)
    parts = parts_of(positive[:own], seed=seed)
    none = torch.zeros(len(positive) - own, dtype=torch.bool)
    return Parts(
        torch.cat([parts.train | parts.test, none]),
        torch.cat([parts.held_out, none]),
        torch.cat([torch.zeros(own, dtype=torch.bool), ~none]),
    )

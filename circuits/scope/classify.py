"""Detectors of a few features made from labelled texts, and run: opened, done, written."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from circuits.features.detectors import classified, detected, read_detector
from circuits.features.named import Named
from circuits.graph import write_json
from circuits.opening import load_model, open_suite
from circuits.render.charts.methods_figure import methods_figure
from circuits.runs.overwrite import MADE_FROM, check_absent, check_record, digest
from circuits.runs.pages import feature_names
from hooked_qwen.identity import identity
from hooked_qwen.notices import notify
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import read_once
from saes.evaluation.probing import read_labelled
from saes.scope.classify import AcrossChoice, TextSplit, only, parts_of
from saes.suite import MlpChoice, hash_of, load_suite

FIGURES = (".svg", ".pdf")
"Beside the file of a detector."


def classify(
    dictionaries: str,
    model: str = "bundled",
    *,
    labelled: Path,
    positive: str,
    test: Path | Mapping[str, Path] | None = None,
    texts: int | None = None,
    mlp: MlpChoice = "sae",
    across: AcrossChoice = "one",
    seed: int = 0,
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """A detector of texts labelled `positive` among `labelled`, judged beside simple methods.

    Figures are of texts that chose nothing: of the file `test`, and then all of `labelled` is
    learned from; or of a part of `labelled`, and beside it of each file of `test` by its name. With
    `texts` only so many of each kind are learned from. Its features are of one dictionary, or of
    several, or the held-out part chooses. The detector goes to the file `out`, and figures beside
    it.

    Raises `ValueError` where there are too few texts of a kind, and where `out` holds something
    else, unless by `force`.
    """
    files = test if isinstance(test, Mapping) else {} if test is None else {"": test}
    texts_by_file = [read_labelled(labelled), *map(read_labelled, files.values())]
    every = [text for some in texts_by_file for text in some]
    is_positive = torch.tensor([text.label == positive for text in every])
    if not every:
        raise ValueError(f"{labelled} holds no texts")
    _check_labels([text.label for text in every], positive)
    own, *judged = _each_apart([len(some) for some in texts_by_file])
    for file, some in zip(files.values(), judged, strict=True):
        if is_positive[some].all() or not is_positive[some].any():
            raise ValueError(f"there is nothing to judge on: {file} has texts of one kind only")
    alone = judged[0] if isinstance(test, Path) else None
    parts = _parts(is_positive, own, alone, seed)
    if texts is not None:
        parts = only(parts, is_positive, texts, seed=seed)
    source = {
        "labelled": digest(*(f"{t.label} {t.text}" for t in every)),
        "positive": positive,
        "dictionaries": hash_of(dictionaries),
        "mlp": mlp,
        **({} if across == "one" else {"across": across}),
        **({"tests": list(files)} if alone is None and files else {}),
        "texts": texts,
        "seed": seed,
    }
    if out is not None:
        check_record(out, source, beside=FIGURES, force=force)
    loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
    record = classified(
        loaded,
        suite,
        [text.text for text in every],
        is_positive,
        parts,
        Named(loaded, suite, feature_names(dictionaries)),
        tests=dict(zip(files, judged, strict=True)) if alone is None else {},
        across=across,
        seed=seed,
        report=report,
    )
    record = {**record, "positive": positive, MADE_FROM: source, "model_hash": identity(loaded)}
    if out is not None:
        for suffix in FIGURES:
            methods_figure(record, out.with_suffix(suffix))
        write_json(record, out)
    return record


def detect(
    detector: Path,
    dictionaries: str,
    model: str = "bundled",
    *,
    text: Sequence[str] = (),
    stream: Iterable[str] | None = None,
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
) -> Iterator[dict[str, Any]]:
    """What a detector says of each text of a stream, one record each; also a line each in `out`.

    Texts are those of the sources `text`, as `--text` takes them (`["-"]` is standard input), or
    come from `stream`, however long it is.

    Raises `ValueError` for a file that is no detector, for other dictionaries than its own, where
    there are no texts, or not one of the two, and where `out` is there, unless by `force`.
    """
    if bool(text) == (stream is not None):
        raise ValueError(
            "a detector reads either sources, `text`, or a `stream` of texts: give one"
        )
    if out is not None:
        check_absent(out, force=force)
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
    where = ", ".join(map(str, text)) or "the stream"
    texts = read_once(text) if stream is None else stream
    records = _some(detected(loaded, suite, texts, found), where)
    yield from records if out is None else _written(records, out)


def _some(records: Iterable[dict[str, Any]], where: str) -> Iterator[dict[str, Any]]:
    """The same records; raises `ValueError` where there are none."""
    number = 0
    for record in records:
        number += 1
        yield record
    if not number:
        raise ValueError(f"no text in {where}")


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


def _each_apart(counts: Sequence[int]) -> list[Bool[Tensor, " texts"]]:
    """Which texts are of each file, one file after another."""
    number = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return [number == i for i in range(len(counts))]


def _parts(
    positive: Bool[Tensor, " texts"],
    own: Bool[Tensor, " texts"],
    alone: Bool[Tensor, " texts"] | None,
    seed: int,
) -> TextSplit:
    """Parts of one's own texts; where others `alone` are to judge on none of these is."""
    parts = parts_of(positive[own], seed=seed)
    if alone is not None:
        parts = TextSplit(parts.train | parts.test, parts.held_out, torch.zeros_like(parts.test))

    def among_all(part: Bool[Tensor, " own"]) -> Bool[Tensor, " texts"]:
        return torch.zeros_like(own).masked_scatter(own, part)

    test = among_all(parts.test) if alone is None else alone
    return TextSplit(among_all(parts.train), among_all(parts.held_out), test)

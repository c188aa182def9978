"""Texts for the features that a training set lacks: opened, written, judged."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from circuits.features.named import key_of
from circuits.features.synthesis import synthesised
from circuits.features.synthesis_record import ASKED, SynthesisConfig
from circuits.features.writers import (
    RequestStyle,
    TextGenerator,
    WritingConfig,
    by_model,
    default_style,
    each_by,
)
from circuits.features.written import SyntheticText
from circuits.graph import rounded, write_json
from circuits.opening import open_suite
from circuits.render.charts.synthesis import synthesis_figure
from circuits.runs.overwrite import MADE_FROM, check_record, digest
from circuits.runs.pages import feature_names
from hooked_qwen.files import check_not_file, write_atomically
from hooked_qwen.identity import identity
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from saes.evaluation.probing import read_labelled
from saes.suite import MlpChoice, hash_of

RECORD, KEPT, WRITTEN = "synthesis.json", "synthetic.jsonl", "written.jsonl"
FIGURES = ("synthesis.svg", "synthesis.pdf")


def synthesise(
    dictionaries: str,
    model: str = "bundled",
    *,
    training: Path,
    target: Path,
    test: Path | None = None,
    generator: TextGenerator | None = None,
    config: SynthesisConfig | None = None,
    style: RequestStyle | None = None,
    tokens: int = 80,
    temperature: float = 1.0,
    separator: str = "\n\n",
    mlp: MlpChoice = "sae",
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Texts that turn on features which `target` has and `training` lacks, and what they bring.

    All three files are labelled texts, `test` those that classifiers are judged on. `generator` is
    any function from a prompt to a text, or to several; by default the model itself, asked by an
    instruction where its tokenizer has a chat template, else by examples to be continued, with
    `separator` between them. The folder
    `out` gets the record, its figure, the texts that were kept (`synthetic.jsonl`: text, label, the
    feature that it was asked for, those that are on) and everything written (`written.jsonl`).

    Raises `ValueError` for files without labels, where no feature is missing, and where `out` holds
    something else, unless by `force`.
    """
    config = config or SynthesisConfig()
    writing = WritingConfig(
        style=style or "instruction", tokens=tokens, temperature=temperature, separator=separator
    )
    if out is not None:
        check_not_file(out)
    texts = [read_labelled(path) if path else [] for path in (training, target, test)]
    source = {
        "texts": [digest(*(f"{t.label} {t.text}" for t in some)) for some in texts],
        "generator": "model" if generator is None else str(getattr(generator, "__name__", "given")),
        "dictionaries": hash_of(dictionaries),
        "mlp": mlp,
        "config": asdict(config),
        "writing": asdict(writing) | {"style": style},
        "dtype": placement.model_dtype,
    }
    if out is not None:
        check_record(out / RECORD, source, force=force)
    loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
    if style is None and generator is None:
        writing = replace(writing, style=default_style(loaded.tokenizer))
    found = synthesised(
        loaded,
        suite,
        texts[0],
        texts[1],
        each_by(generator, report=report)
        if generator
        else by_model(loaded, writing, report=report),
        feature_names(dictionaries),
        test=texts[2],
        config=config,
        writing=writing,
        report=report,
    )
    record = {**found.record, MADE_FROM: source, "model_hash": identity(loaded)}
    if out is not None:
        _write(record, found.written, out)
    return record


def _write(record: dict[str, Any], written: Sequence[SyntheticText], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    nodes = {one.wanted.feature: key_of(one.wanted.node) for one in written
             if one.wanted and one.row == ASKED}  # fmt: skip
    kept = [_line(one, nodes) for one in written if one.kept and one.row == ASKED]
    every = [{"row": one.row, "kept": one.kept, **_line(one, nodes)} for one in written]
    for name, rows in ((KEPT, kept), (WRITTEN, every)):
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        write_atomically(out / name, lambda partial, content=content: partial.write_bytes(content))
    for name in FIGURES:
        synthesis_figure(record, out / name)
    write_json(record, out / RECORD)


def _line(one: SyntheticText, nodes: dict[int, str]) -> dict[str, Any]:
    """A text with what it was asked for and what is on; features of other suites have no name."""
    return {
        "text": one.text,
        "label": one.label,
        "seed": one.seed,
        "asked": key_of(one.wanted.node) if one.wanted else None,
        "called": one.wanted.called if one.wanted else None,
        "fired": [nodes[f] for f in one.fired if f in nodes],
        "shared": rounded(one.shared),
        "cosine": rounded(one.cosine),
    }

"""Coverage and redundancy of sets of texts: opened, done, written."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from circuits.features.coverage import CoverConfig, covered
from circuits.graph import write_json
from circuits.opening import open_suite
from circuits.render.charts.coverage import growth_figure, overlap_figure
from circuits.runs.overwrite import MADE_FROM, check_record, digest
from circuits.scope.sample_sets import read_results, sample_sets
from hooked_qwen.files import check_not_file
from hooked_qwen.identity import identity
from hooked_qwen.load import load_tokenizer
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import texts_of
from hooked_qwen.tokens import encode_prompt
from saes.scope.activity import LONGEST
from saes.suite import MlpChoice, hash_of

RECORD = "coverage.json"
OVERLAP = ("overlap.svg", "overlap.pdf")
GROWTH = ("growth.svg", "growth.pdf")
FIGURES = (*OVERLAP, *GROWTH)


def cover(
    dictionaries: str,
    sets: Sequence[str],
    model: str = "bundled",
    *,
    common: Sequence[str] = (),
    results: Path | None = None,
    texts: int = 200,
    config: CoverConfig | None = None,
    mlp: MlpChoice = "sae",
    out: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """What sets of samples turn on, how redundant they are, and what they share.

    `sets` and `common` are sources as `circuits.scope.sample_sets` takes them and as `--text`
    takes them; the first `texts` of each are read. A common text that is too long to be read whole,
    such as a file of plain text, counts as its lines. `results` is a file of what models got right,
    a row for each set, item and model. The record and its figures go to the folder `out`.

    Raises `ValueError` for a set that cannot be read, for results of other items, and where `out`
    holds something else, unless by `force`.
    """
    config = config or CoverConfig()
    if out is not None:
        check_not_file(out)
    tokenizer = load_tokenizer(model)
    found = sample_sets(sets, model, tokenizer, texts=texts, seed=config.seed)
    shared = list(islice(_lines(common, tokenizer), texts)) if common else []
    right = None if results is None else read_results(results)
    source = {
        "sets": {name: digest(*some) for name, some in found.items()},
        "common": digest(*shared),
        "results": None if right is None else digest(*((n, r.tolist()) for n, r in right.items())),
        "dictionaries": hash_of(dictionaries),
        "mlp": mlp,
        "config": asdict(config),
        "dtype": placement.model_dtype,
    }
    if out is not None:
        check_record(out / RECORD, source, force=force)
    loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
    record = covered(loaded, suite, found, config, common=shared, results=right, report=report)
    record = {**record, MADE_FROM: source, "model_hash": identity(loaded)}
    if out is not None:
        _write(record, out)
    return record


def _lines(sources: Sequence[str], tokenizer: Any) -> Iterator[str]:
    """Texts that are not blank; one that is too long to be read whole as its lines."""
    for text in filter(str.strip, texts_of(sources)()):
        whole = len(text) <= LONGEST or len(encode_prompt(tokenizer, text)) <= LONGEST
        yield from [text] if whole else filter(str.strip, text.splitlines())


def _write(record: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name in OVERLAP:
        overlap_figure(record, out / name)
    for name in GROWTH:
        growth_figure(record, out / name)
    write_json(record, out / RECORD)

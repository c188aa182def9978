"""What each verb for dictionaries does, as one function: done, written."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

from transformer_lens.model_bridge import TransformerBridge

from circuits.features.connections import connections_of
from circuits.features.labels import called, called_in_suite, scored
from circuits.features.neighbours import feature_card, find_feature
from circuits.features.suite_index import suite_record
from circuits.graph import write_json
from circuits.opening import open_model, open_suite
from circuits.render.pages.feature.feature_page import feature_page
from circuits.render.pages.suite.suite_page import suite_page
from circuits.runs.overwrite import MADE_FROM, check_page, check_record, digest, signed
from circuits.runs.pages import feature_names, labels_for, run_links
from hooked_qwen.files import write_text_atomically
from hooked_qwen.identity import identity
from hooked_qwen.moved import moved
from hooked_qwen.placement import ANYWHERE, Placement, name_of
from hooked_qwen.precision import model_precision
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import Corpus
from saes.evaluation.baselines import QualityWithBaselines, evaluate_with_baselines
from saes.evaluation.metrics import evaluate_jointly, held_out_blocks
from saes.evaluation.probing import probe, read_labelled
from saes.examples.store import Store, StoreConfig, build_store
from saes.formats.shapes import shape_of
from saes.on_demand import OnDemand, each, load_all
from saes.suite import MlpChoice, load_suite
from transcoders.in_suite import transcoders_in

COACTIVE_TOKENS = 16_384
"Tokens of text in which is looked at what is on together."


def evaluate_suite(
    dictionaries: str,
    model: str,
    texts: Corpus,
    tokens: int,
    *,
    mlp: MlpChoice = "sae",
    labelled: Path | None = None,
    seed: int = 0,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """The quality of every dictionary of a suite with its controls, and of all spliced at once.

    Where there are transcoders, `mlps` is what it costs to put them alone in the place of their
    MLPs, all at once.

    The linear control is fitted on text that follows the text judged on. With `labelled`, how
    well single features tell the labels (`saes.evaluation.probing`). `seed` draws the untrained
    dictionaries, and the texts that a probe is fitted on.
    """
    chosen, every = load_suite(dictionaries, mlp=mlp), load_all(dictionaries, placement.memory)
    loaded = open_model(every.suite, model, placement, report)
    every = every.fitting(loaded)
    fitted = max(tokens, 10 * loaded.cfg.d_model)
    blocks = held_out_blocks(texts(), loaded, tokens=tokens)
    more = held_out_blocks(texts(), loaded, tokens=tokens + fitted)
    judged: list[QualityWithBaselines] = []
    for some in _that_fit(every, loaded, placement.memory):
        done = len(judged)
        judged += evaluate_with_baselines(
            loaded,
            list(some),
            blocks,
            fitted_on=more[len(blocks) :],
            seed=seed + done,
            report=_of_several(report, "evaluating", done, len(some), len(every)),
        )
    joint = evaluate_jointly(
        loaded,
        every.of(chosen.files.values()),
        blocks,
        report=lambda done, total: report("all at once", done, total),
    )
    record: dict[str, Any] = {
        "dictionaries": {
            name: asdict(j.quality)
            | {"controls": {control: asdict(c) for control, c in j.controls.items()}}
            for name, j in zip(every.names, judged, strict=True)
        },
        "joint": asdict(joint),
    }
    if transcoders := transcoders_in(every.suite):
        mlps = evaluate_jointly(
            loaded,
            OnDemand(every.suite, transcoders),
            blocks,
            report=lambda done, total: report("MLPs at once", done, total),
        )
        record["mlps"] = asdict(mlps) | {"names": transcoders}
    if labelled is not None:
        data = read_labelled(labelled)
        record["probes"] = {
            name: asdict(probe(loaded, every.suite[name], data, seed=seed)) for name in every.names
        }
    return record


def _that_fit(
    dictionaries: OnDemand, model: TransformerBridge, memory: float | None
) -> Iterator[OnDemand]:
    """The dictionaries in lots, each with an untrained one beside it; all together where no limit
    is set."""
    lot, taken = 0, 0.0
    sizes = [
        2 * shape_of(dictionaries.suite.files[name], model.cfg.d_model).bytes
        for name in dictionaries.names
    ]
    for i, size in enumerate(sizes):
        if memory is not None and i > lot and taken + size > memory * 1e9:
            yield dictionaries[lot:i]
            lot, taken = i, 0.0
        taken += size
    yield dictionaries[lot:]


def _of_several(
    report: Report, doing: str, before: int, now: int, all_: int
) -> Callable[[int, int], None]:
    """Tells of `now` of `all_` things after the `before` that are done, as of one work."""
    return lambda done, total: report(doing, before * total + now * done, all_ * total)


def feature(
    dictionaries: str,
    which: str,
    model: str,
    texts: Corpus,
    out: Path,
    *,
    tokens: int,
    run: Path | None = None,
    made_from: Mapping[str, Any] | None = None,
    force: bool = False,
    seed: int = 0,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> tuple[dict[str, Any], list[Path]]:
    """The card of one feature, as a record and as files; examples of all are kept in `out`.

    Features are called as in the graph of a `run`, and the page leads there; `write_page` of the
    run then leads back.

    Raises `ValueError` where the card there is `made_from` something else, unless by `force`.
    """
    paths = [out / f"{which.replace('/', '-')}.{suffix}" for suffix in ("json", "html")]
    check_record(paths[0], made_from or {}, force=force)
    opened = load_all(dictionaries, placement.memory)
    find_feature(which, opened)
    loaded = open_model(opened.suite, model, placement, report)
    opened = opened.fitting(loaded)
    store = _store(loaded, opened, texts, out, StoreConfig(tokens=tokens, seed=seed), report)
    card = called(feature_card(loaded, opened, store, which), feature_names(dictionaries, run))
    card = scored(card, labels_for(dictionaries, run))
    write_json(card | {MADE_FROM: dict(made_from or {})}, paths[0])
    page = feature_page(card, run_links(run, out))
    write_text_atomically(paths[1], page)
    return card, paths


def suite_overview(
    dictionaries: str,
    model: str,
    texts: Corpus,
    out: Path,
    *,
    tokens: int,
    mlp: MlpChoice = "sae",
    run: Path | None = None,
    made_from: Mapping[str, Any] | None = None,
    force: bool = False,
    seed: int = 0,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> Path:
    """The page of a whole suite; examples are kept in `out`.

    Features are called as in the graph of a `run`, and the page leads there; `write_page` of the
    run then leads back.

    Raises `ValueError` where the page there is `made_from` something else, unless by `force`.
    """
    path, source = out / "suite.html", digest(made_from)
    check_page(path, source, force=force)
    loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
    opened = OnDemand(suite.fitting(loaded))
    store = _store(loaded, opened, texts, out, StoreConfig(tokens=tokens, seed=seed), report)
    record = suite_record(loaded, opened, store, suite.metrics(), report=report)
    record = called_in_suite(record, feature_names(dictionaries, run))
    title = f"Features of {loaded.cfg.model_name}"
    page = signed(suite_page(record, title=title, links=run_links(run, out)), source)
    write_text_atomically(path, page)
    return path


def connections(
    dictionaries: str,
    which: str,
    model: str,
    *,
    top: int,
    mlp: MlpChoice = "transcoder",
    texts: Corpus | None = None,
    tokens: int = COACTIVE_TOKENS,
    out: Path | None = None,
    made_from: Mapping[str, Any] | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """What a feature reads and what reads it by weights alone, as a record and as a file.

    With `texts` what it reads is corrected by what there is to be read where it is on. Features
    are called as people call them in the dictionaries' labels.

    Raises `ValueError` where the file there is `made_from` something else, unless by `force`.
    """
    if out is not None:
        check_record(out, made_from or {}, force=force)
    loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
    record = connections_of(
        loaded,
        suite.fitting(loaded),
        which,
        top,
        names=feature_names(dictionaries),
        blocks=None if texts is None else list(held_out_blocks(texts(), loaded, tokens=tokens)),
        report=lambda done, total: report("text", done, total),
    )
    if out is not None:
        write_json(record | {MADE_FROM: dict(made_from or {})}, out)
    return record


def _store(
    model: TransformerBridge,
    dictionaries: OnDemand,
    texts: Corpus,
    out: Path,
    config: StoreConfig,
    report: Report,
) -> Store:
    """Examples of every feature, in a folder named for what decides which they are."""
    names = " ".join(sorted(each(dictionaries, lambda d: d.spec.name)))
    what = f"{identity(model)} {names} {config.tokens}"
    if (precision := name_of(model_precision(model))) != "float32":
        what += f" {precision}"
    if config.seed:
        what += f" seed {config.seed}"
    folder = out / f"examples-{sha256(what.encode()).hexdigest()[:8]}"
    return build_store(
        model,
        dictionaries,
        texts(),
        folder,
        config=config,
        report=lambda done, total: report("examples", done, total),
    )


__getattr__ = moved(__name__, dict.fromkeys(("load_model", "sources"), "circuits.opening"))

"""SHIFT as a folder: the record, the page, the probe's circuit as a run, the cut as an edit.

OUT/shift.json         every number, with what was judged of each feature
OUT/shift.html         the same to look at; features can be judged there
OUT/judgements.json    what was judged of the first seed's circuit
OUT/edit.json          the features that are cut, as an edit file
OUT/circuit/           the first seed's circuit as a run: verify it, ablate in it, render it
OUT/unfinished/        until all is done: each finished seed, and the effects of the first circuit
"""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from circuits.ablation.faithfulness import limits_at
from circuits.discovery.resume import DiscoveryParts, close_parts, open_parts
from circuits.discovery.sparse_feature import discover
from circuits.features.card import Cards, make_cards, prompt_texts
from circuits.graph import write_json
from circuits.opening import open_suite
from circuits.render.pages.shift.shift_page import shift_page
from circuits.runs.discover_run import identified, label_features
from circuits.runs.folder import write_run
from circuits.runs.inputs import Inputs
from circuits.runs.overwrite import MADE_FROM, check_record, check_run
from circuits.runs.stopwatch import Stopwatch
from circuits.shift.case import ShiftCase
from circuits.shift.finished import SEEDS
from circuits.shift.judging import cut_nodes, read_judgements, save_judgements
from circuits.shift.methods import METHODS, ShiftMethod
from circuits.shift.shift import Ask, ShiftConfig, Shifted, shift
from circuits.shift.texts import shift_data
from hooked_qwen.bundled import language
from hooked_qwen.files import content_hash, write_text_atomically
from hooked_qwen.model_place import BUNDLED, local_folder
from hooked_qwen.nodes import Node
from hooked_qwen.notices import counted, notify
from hooked_qwen.placement import ANYWHERE, Placement, placement_of
from hooked_qwen.progress import Report, silent
from saes.edit_file import Edit, Operation
from saes.identity import suite_hash
from saes.suite import MlpChoice, hash_of

RECORD, PAGE, JUDGED = "shift.json", "shift.html", "judgements.json"


def shift_run(
    data: str,
    out: Path,
    *,
    config: ShiftConfig,
    model: str = BUNDLED,
    dictionaries: str = BUNDLED,
    mlp: MlpChoice = "sae",
    texts: int | None = None,
    fields: Mapping[str, Any] | None = None,
    judgements: Path | None = None,
    ask: Ask | None = None,
    methods: Sequence[ShiftMethod] = METHODS,
    force: bool = False,
    placement: Placement = ANYWHERE,
    command: Sequence[str] = (),
    report: Report = silent,
) -> dict[str, Any]:
    """Shift a classifier of `data` and write what was found to `out`; the record of `shift.json`.

    `fields` are those of `shift_data` that say what a file of texts holds; of `texts` in a set it
    has its own number where none is given. `methods` are as in `shift`, each a function with a name
    of its own. One that was cut off goes on where it was.

    Raises `ValueError` where `out` holds something else, unless by `force`.
    """
    watch = Stopwatch()
    source = {
        "data": data if not Path(data).is_file() else content_hash(Path(data)),
        "fields": dict(fields or {}),
        "texts": texts,
        "model": model,
        "dictionaries_hash": hash_of(dictionaries),
        "mlp": mlp,
        "dtype": placement.model_dtype,
        "config": asdict(config),
        "judgements": judgements and content_hash(judgements),
    }
    if methods is not METHODS:
        source["methods"] = [getattr(method, "__name__", repr(method)) for method in methods]
    check_record(out / RECORD, source, force=force)
    check_run(out / "circuit", dict, force=force)
    said = None if judgements is None else read_judgements(judgements)
    loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
    given = partial(shift_data, data, n=texts, model=model, **(fields or {}))
    by = "person" if ask is not None else "rule" if said is None else "file"
    exactly = identified(loaded, source | {"judged_by": by})
    parts = open_parts(out, exactly, resume=True, force=force, holds=_finished_seeds)
    _notify_of_finished(parts, config)
    with _nothing_kept_of_what_cannot_be_done(out):
        found = shift(
            loaded,
            suite,
            lambda seed: given(seed=seed),
            config=config,
            judgements=said,
            ask=ask,
            methods=methods,
            kept=parts.folder,
            report=report,
        )
    inputs = Inputs.resolved(model, dictionaries, out / "circuit" / "prompts.jsonl", mlp)
    cards = _write_circuit(found, out / "circuit", inputs, placement, command, watch, parts, report)
    record = _write(found, out, source, cards, watch)
    close_parts(out)
    return record


@contextmanager
def _nothing_kept_of_what_cannot_be_done(out: Path) -> Generator[None]:
    """The same command would end in the same line, and another one be refused."""
    try:
        yield
    except ValueError:
        close_parts(out)
        if not any(out.iterdir()):
            out.rmdir()
        raise


def _finished_seeds(folder: Path) -> str:
    return counted(len(list(folder.glob(SEEDS))), "finished seed")


def _notify_of_finished(parts: DiscoveryParts, config: ShiftConfig) -> None:
    assert parts.folder is not None, "this run's folder"
    if any(parts.folder.glob(SEEDS)):
        notify(
            f"going on with what was cut off, {_finished_seeds(parts.folder)} of {config.seeds}: "
            f"delete {parts.folder} to start anew"
        )


def _write_circuit(
    found: Shifted,
    folder: Path,
    inputs: Inputs,
    placement: Placement,
    command: Sequence[str],
    watch: Stopwatch,
    parts: DiscoveryParts,
    report: Report,
) -> Cards:
    """The first seed's circuit as a run folder; the cards of what was judged.

    Its effects are among the `parts`: features were judged by them.
    """
    analysis, judged = found.first.analysis, found.seeds[0].features
    discovery = discover(analysis, parts=parts, report=report)
    texts = None
    if local_folder(inputs.model) == local_folder(BUNDLED):
        texts = partial(language.documents, seed=1)
    cards = label_features(analysis, discovery.graph, texts, report)
    write_run(
        folder,
        discovery,
        cards,
        inputs=inputs,
        config=analysis.config,
        command=command,
        watch=watch,
        placement=placement_of(analysis.model, placement.memory),
        given=analysis.prompts.prompts,
    )
    others = [f.node for f in judged if f"{f.node.site}/{f.node.feature}" not in cards]
    texts_here = prompt_texts(analysis.prompts)
    return cards | make_cards(analysis.model, analysis.suite, others, texts_here)


def cut_edit(case: ShiftCase, cut: Sequence[Node]) -> Edit:
    """What `case.ablated` does, for any text: norm outliers are told by their norms."""
    suite, limits = case.suite, case.analysis.norm_limits

    def zeroed(node: Node) -> Operation:
        by_site = [limits_at(suite, str(site), limits) for site in suite.writes_of(node.site)]
        norms = {site: limit for each in by_site for site, limit in each.items()}
        return Operation(node=node, do="zero", norm_below=tuple(sorted(norms.items())))

    return Edit(
        operations=tuple(map(zeroed, cut)), suite=suite_hash(suite), suite_name=suite.summary()
    )


def _write(
    found: Shifted, out: Path, source: Mapping[str, Any], cards: Cards, watch: Stopwatch
) -> dict[str, Any]:
    """Record, judgements, edit and page."""
    features = found.seeds[0].features
    record = found.record() | {MADE_FROM: dict(source), **watch.reading()}
    save_judgements(features, out / JUDGED)
    cut_edit(found.first, cut_nodes(features)).save(out / "edit.json")
    write_json(record, out / RECORD)
    text = shift_page(record, cards)
    write_text_atomically(out / PAGE, text)
    return record

"""Features searched by texts, by a metric, by a token, by labels: opened, done, written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.features.effect_search import by_effect, text_analysis
from circuits.features.named import Named
from circuits.features.search import by_contrast, by_label, by_token, in_text
from circuits.features.search_ways import check_ways
from circuits.features.strips import LONGEST, strips
from circuits.graph import write_json
from circuits.metrics.answers import with_own_answers
from circuits.metrics.readout import read_metric
from circuits.opening import open_suite, sources
from circuits.prompts import encode_prompts, read_prompts
from circuits.render.pages.search.search_page import ranked, search_page
from circuits.runs.overwrite import MADE_FROM, check_page, check_record, digest, signed
from circuits.runs.pages import feature_names, feature_pages
from circuits.runs.prompt_sets import reference_for
from hooked_qwen.files import content_hash, write_text_atomically
from hooked_qwen.nodes import Node
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import first_texts
from saes.scope.contrast import RankedBy
from saes.suite import MlpChoice, Suite

ON_PAGE = 8
"Texts of each kind that a page shows."


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What is looked for, and how."""

    positive: Sequence[str]
    negative: Sequence[str]
    prompts: Path | None
    text: str | None
    token: str | None
    label: str | None
    metric: str | None
    by: RankedBy
    estimator: str
    top: int
    texts: int
    mlp: MlpChoice
    seed: int

    def __post_init__(self) -> None:
        check_ways(
            positive=self.positive,
            negative=self.negative,
            prompts=self.prompts,
            text=self.text,
            token=self.token,
            label=self.label,
            metric=self.metric,
        )

    def source(self) -> dict[str, Any]:
        """All of it, by which two searches are the same."""
        prompts = None if self.prompts is None else content_hash(self.prompts)
        return {**vars(self), "prompts": prompts}


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What is looked in."""

    model: TransformerBridge
    suite: Suite
    named: Named


@dataclass(frozen=True)
class _Found:
    """What was found, and the texts that it was found in, each with its kind before it."""

    record: dict[str, Any]
    texts: Sequence[tuple[str, str]] = field(default_factory=tuple)


def search(
    dictionaries: str,
    model: str = "bundled",
    *,
    positive: Sequence[str] = (),
    negative: Sequence[str] = (),
    prompts: Path | None = None,
    text: str | None = None,
    token: str | None = None,
    label: str | None = None,
    metric: str | None = None,
    by: RankedBy = "share",
    estimator: str = "patching",
    top: int = 20,
    texts: int = 200,
    mlp: MlpChoice = "sae",
    seed: int = 0,
    out: Path | None = None,
    page: Path | None = None,
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Features by exactly one of: two sets of texts, prompts, a text, a token, words of labels.

    `positive` and `negative` are sources of texts, as `--text` takes them, of which the first
    `texts` each are read. With a `metric` of texts (`circuits.metrics.texts`) features are ranked
    by how differently they move it; `prompts`, a file, rank them by what they do to a metric of
    prompts. The record also goes to the file `out`, and as something to look at to `page`.

    Raises `ValueError` for another number of ways to search, for half a contrast, and where `out`
    or `page` hold something else, unless by `force`.
    """
    asked = _Asked(
        positive=positive,
        negative=negative,
        prompts=prompts,
        text=text,
        token=token,
        label=label,
        metric=metric,
        by=by,
        estimator=estimator,
        top=top,
        texts=texts,
        mlp=mlp,
        seed=seed,
    )
    source = sources(dictionaries, model, (), placement, asked=asked.source())
    if out is not None:
        check_record(out, source, force=force)
    if page is not None:
        check_page(page, digest(source), force=force)
    names, opened = feature_names(dictionaries), None
    if label is not None:
        found = _Found(by_label(names, label, top=top))
    else:
        loaded, suite = open_suite(dictionaries, model, mlp, placement, report)
        opened = _Opened(model=loaded, suite=suite, named=Named(loaded, suite, names))
        found = _found(asked, opened, report)
    if out is not None:
        write_json({**found.record, MADE_FROM: source}, out)
    if page is not None:
        facts = {"Model": Path(model).name, "Dictionaries": Path(dictionaries).name}
        html = signed(_page(found, opened, facts | _facts(asked), page), digest(source))
        write_text_atomically(page, html)
    return found.record


def _found(asked: _Asked, opened: _Opened, report: Report) -> _Found:
    """What a search in the model gives."""
    model, suite, named = opened.model, opened.suite, opened.named
    if asked.text is not None:
        return _Found(in_text(model, suite, asked.text, named), [("", asked.text)])
    if asked.token is not None:
        return _Found(by_token(model, suite, asked.token, named, top=asked.top))
    if asked.prompts is not None:
        return _of_prompts(asked, asked.prompts, opened, report)
    sets = [first_texts(sources, asked.texts) for sources in (asked.positive, asked.negative)]
    kinds = ("positive", "negative")
    texts = [(kind, t) for kind, some in zip(kinds, sets, strict=True) for t in some]
    if asked.metric is None:
        record = by_contrast(
            model,
            suite,
            *(sets[0], sets[1], named),
            by=asked.by,
            top=asked.top,
            seed=asked.seed,
            report=report,
        )
        return _Found(record, texts)
    analysis = text_analysis(
        model, suite, [t for _, t in texts], asked.metric, estimator=asked.estimator
    )
    record = by_effect(
        analysis,
        named,
        metric=asked.metric,
        positive=torch.tensor([kind == "positive" for kind, _ in texts]),
        top=asked.top,
        seed=asked.seed,
        report=report,
    )
    return _Found(record, texts)


def _of_prompts(asked: _Asked, file: Path, opened: _Opened, report: Report) -> _Found:
    """Features by their effect on a metric of prompts, set to patch values if there are any."""
    listed, metric = read_prompts(file), asked.metric or DiscoverConfig.metric
    config = DiscoverConfig(
        metric=read_metric(str(metric)),
        reference=reference_for(listed),
        positions="sum",
        batch_size=1,
        estimator=asked.estimator,
    )
    encoded = encode_prompts(listed, opened.model.tokenizer, positions="sum", unfit="skip")
    encoded = with_own_answers(opened.model, encoded)
    record = by_effect(
        Analysis.of(opened.model, opened.suite, encoded, config),
        opened.named,
        metric=str(metric),
        top=asked.top,
        seed=asked.seed,
        report=report,
    )
    return _Found(record, [("", prompt.clean) for prompt in encoded.prompts])


def _page(found: _Found, opened: _Opened | None, facts: Mapping[str, str], path: Path) -> str:
    rows = ranked(found.record)
    shown, labels = [], {}
    if opened is not None and found.texts:
        kinds = dict.fromkeys(kind for kind, _ in found.texts)
        texts = [t for kind in kinds for t in _some([t for t in found.texts if t[0] == kind])]
        whole = found.record["how"] == "text"
        shown, labels = strips(
            opened.model,
            opened.suite,
            texts,
            [Node.parse(row["feature"]) for row in rows],
            opened.named,
            longest=None if whole else LONGEST,
        )
    every = {row["feature"] for row in rows} | set(labels)
    pages = feature_pages(path, sorted(every))
    return search_page(found.record, shown, labels, facts=facts, pages=pages)


def _some(texts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Few of them, from all over."""
    n = min(ON_PAGE, len(texts))
    return [texts[i * len(texts) // n] for i in range(n)]


def _facts(asked: _Asked) -> dict[str, str]:
    """What a page says was looked for."""
    told = {
        "Positive": ", ".join(Path(source).name for source in asked.positive),
        "Negative": ", ".join(Path(source).name for source in asked.negative),
        "Prompts": "" if asked.prompts is None else asked.prompts.name,
        "Metric": asked.metric or "",
        "Token": "" if asked.token is None else f"“{asked.token}”",
        "Label": asked.label or "",
    }
    return {name: value for name, value in told.items() if value}

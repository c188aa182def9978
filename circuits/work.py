"""What each command does, as one function: inputs opened, work done, folder written."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits import edit as edits
from circuits import graph as graphs
from circuits.cards import block_texts, make_cards, name, prompt_texts
from circuits.compare import Difference, differences
from circuits.discover import DiscoverConfig, Discovery, discover
from circuits.faithfulness import To
from circuits.features import feature_card, find_feature
from circuits.graph import ordered, write_json
from circuits.prompts import EncodedPrompts, Prompt, encode_prompts, read_prompts, write_prompts
from circuits.render.compare_page import comparison_page
from circuits.render.curves import curves_figure
from circuits.render.feature_page import feature_page
from circuits.render.figure import figure
from circuits.render.suite_page import suite_page
from circuits.report import Report, silent
from circuits.runs import (
    Inputs,
    Loaded,
    Stopwatch,
    open_inputs,
    read_run,
    verification_of,
    write_page,
    write_run,
)
from circuits.suite_record import suite_record
from circuits.verify import VerifyConfig, verify
from hooked_qwen.bundled import language
from hooked_qwen.files import write_atomically
from hooked_qwen.load import BUNDLED, load, load_tokenizer, local_folder
from hooked_qwen.shards import Cache, write_cache
from hooked_qwen.sites import Site
from hooked_qwen.stream import ActivationBatch, StreamConfig
from hooked_qwen.tokens import read_texts, token_blocks
from saes.controls import judge
from saes.dictionary import DictionarySpec, SparseDictionary
from saes.metrics import Quality, evaluate_jointly, held_out_blocks
from saes.probing import probe, read_labelled
from saes.run import RunOptions, from_cache, train_suite, training_text
from saes.sae import sae
from saes.store import Store, StoreConfig, build_store
from saes.suite import MlpChoice, find, load_suite
from saes.train_config import TrainConfig
from saes.training import Progress
from transcoders.transcoder import transcoder

Family = Literal["saes", "transcoders"]
Texts = Callable[[], Iterator[str]]
EXAMPLE_TOKENS = 16_384
"Tokens of running text looked at for a feature's examples."
EXAMPLE_BLOCK = 64
FORMATS = ("html", "svg", "pdf")


def texts_of(sources: Sequence[str | Path]) -> Texts:
    """A corpus that can be opened again: files, folders, or `bundled` for the bundled English."""
    if [str(s) for s in sources] == [BUNDLED]:
        return lambda: language.documents(seed=1)
    paths = [Path(s) for s in sources]
    if next(read_texts(paths), None) is None:
        raise ValueError(f"no text in {', '.join(map(str, paths))}")
    return lambda: read_texts(paths)


def dictionary_specs(
    families: Sequence[Family],
    layers: Sequence[int],
    kinds: Sequence[str],
    *,
    k: int | None,
    architecture: str = "topk",
    skip: bool = False,
) -> list[DictionarySpec]:
    """The dictionaries to train: SAEs of `kinds` at each layer, a transcoder of each layer."""
    specs = []
    for layer in layers:
        if "saes" in families:
            specs += [sae(Site(kind, layer), k=k, architecture=architecture) for kind in kinds]
        if "transcoders" in families:
            specs.append(transcoder(layer, k=k, architecture=architecture, skip=skip))
    return specs


def train(
    model: TransformerBridge,
    specs: Sequence[DictionarySpec],
    texts: Texts,
    out: Path,
    *,
    config: TrainConfig,
    stream: StreamConfig,
    options: RunOptions | None = None,
    cache: Path | None = None,
    report: Report = silent,
    dtype: torch.dtype = torch.float32,
) -> list[Quality]:
    """Train a suite into `out` and judge it on held-out text."""
    opened = None if cache is None else Cache.open(cache)

    def step(now: Progress) -> None:
        told = f"loss {now.loss:.3f}, L0 {now.l0:.0f}, FVU {now.fvu:.3f}, dead {now.dead:.0%}"
        report("training", now.step, now.steps, f"{told}, {now.tokens_per_second:,.0f}/s")

    def batches(sites: list[Site], start: int) -> Iterator[ActivationBatch]:
        assert opened is not None
        return from_cache(opened, sites, model.cfg.model_name, stream, start)

    return train_suite(
        model,
        specs,
        texts,
        out,
        config=config,
        stream=stream,
        options=options,
        batches=None if opened is None else batches,
        report=step,
        report_evaluation=lambda done, total: report("evaluating", done, total),
        dtype=dtype,
    )


def cache_activations(
    model: TransformerBridge,
    sites: Sequence[Site],
    texts: Texts,
    out: Path,
    *,
    tokens: int,
    stream: StreamConfig,
    half: bool = False,
    report: Report = silent,
) -> Cache:
    """Write activations of the text that dictionaries are trained on; the held-out part is not."""
    return write_cache(
        model,
        sites,
        training_text(texts),
        out,
        config=stream,
        tokens=tokens,
        dtype=torch.bfloat16 if half else torch.float32,
        report=lambda done, total: report("caching", done, total),
    )


def evaluate_suite(
    dictionaries: str,
    model: str,
    texts: Texts,
    tokens: int,
    *,
    mlp: MlpChoice = "sae",
    labelled: Path | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """The quality of every dictionary of a suite with its controls, and of all spliced at once.

    The linear control is fitted on text that follows the text judged on. With `labelled`, how
    well single features tell the labels (`saes.probing`).
    """
    suite = load_suite(dictionaries, mlp=mlp)
    found = find(dictionaries)
    opened = [found.load(entry) for entry in found.entries]
    loaded = load(model)
    fitted = max(tokens, 10 * loaded.cfg.d_model)
    blocks = held_out_blocks(texts(), loaded, tokens=tokens)
    more = held_out_blocks(texts(), loaded, tokens=tokens + fitted)
    judged = judge(
        loaded,
        opened,
        blocks,
        fitted_on=more[len(blocks) :],
        report=lambda done, total: report("evaluating", done, total),
    )
    joint = evaluate_jointly(
        loaded,
        list(suite.values()),
        blocks,
        report=lambda done, total: report("all at once", done, total),
    )
    record: dict[str, Any] = {
        "dictionaries": {
            d.spec.name: asdict(j.quality)
            | {"controls": {name: asdict(c) for name, c in j.controls.items()}}
            for d, j in zip(opened, judged, strict=True)
        },
        "joint": asdict(joint),
    }
    if labelled is not None:
        data = read_labelled(labelled)
        record["probes"] = {d.spec.name: asdict(probe(loaded, d, data)) for d in opened}
    return record


def feature(
    dictionaries: str,
    which: str,
    model: str,
    texts: Texts,
    out: Path,
    *,
    tokens: int,
    report: Report = silent,
) -> tuple[dict[str, Any], list[Path]]:
    """The card of one feature, as a record and as files; examples of all are kept in `out`."""
    found = find(dictionaries)
    opened = [found.load(entry) for entry in found.entries]
    find_feature(which, opened)
    loaded = load(model)
    store = _store(loaded, opened, texts, out, tokens, report)
    card = feature_card(loaded, opened, store, which)
    paths = [out / f"{which.replace('/', '-')}.{suffix}" for suffix in ("json", "html")]
    write_json(card, paths[0])
    page = feature_page(card)
    write_atomically(paths[1], lambda partial: partial.write_text(page, encoding="utf-8"))
    return card, paths


def suite_overview(
    dictionaries: str,
    model: str,
    texts: Texts,
    out: Path,
    *,
    tokens: int,
    mlp: MlpChoice = "sae",
    report: Report = silent,
) -> Path:
    """The page of a whole suite; examples are kept in `out`."""
    suite = load_suite(dictionaries, mlp=mlp)
    loaded, opened = load(model), list(suite.values())
    store = _store(loaded, opened, texts, out, tokens, report)
    record = suite_record(loaded, opened, store, suite.metrics(), report=report)
    page = suite_page(record, title=f"Features of {loaded.cfg.model_name}")
    path = out / "suite.html"
    write_atomically(path, lambda partial: partial.write_text(page, encoding="utf-8"))
    return path


def _store(
    model: TransformerBridge,
    dictionaries: Sequence[SparseDictionary],
    texts: Texts,
    out: Path,
    tokens: int,
    report: Report,
) -> Store:
    """Examples of every feature, in a folder named for the dictionaries they are of."""
    names = " ".join(sorted(d.spec.name for d in dictionaries))
    folder = out / f"examples-{sha256(f'{names} {tokens}'.encode()).hexdigest()[:8]}"
    return build_store(
        model,
        dictionaries,
        texts(),
        folder,
        config=StoreConfig(tokens=tokens),
        report=lambda done, total: report("examples", done, total),
    )


def make_prompts(
    task: str, n: int, *, split: language.Split, seed: int, model: str, out: Path
) -> list[Prompt]:
    """Write a prompt set of the bundled English, checked against the tokenizer of `model`.

    Raises `ValueError` for an unknown task, or words that are not one token to the model.
    """
    prompts = [
        Prompt(
            clean=p.clean,
            patch=p.patch,
            answer=(p.answer,),
            wrong=(p.wrong,),
            case=p.case,
            where=f"{task} {p.case!r}",
        )
        for p in language.pairs(task, n, split=split, seed=seed)
    ]
    encode_prompts(prompts, load_tokenizer(model), positions="sum")
    write_prompts(prompts, out)
    return prompts


def discover_run(
    inputs: Inputs,
    out: Path,
    *,
    config: DiscoverConfig,
    texts: Texts | None = None,
    command: Sequence[str] = (),
    report: Report = silent,
) -> Discovery:
    """Find the circuit of a prompt set and write it to `out`.

    `texts` is where features' examples come from besides the prompts; the bundled model brings
    its own.
    """
    watch = Stopwatch()
    loaded = open_inputs(inputs, config)
    discovery = discover(loaded.model, loaded.suite, loaded.prompts, config=config, report=report)
    if texts is None and local_folder(inputs.model) == local_folder(BUNDLED):
        texts = texts_of([BUNDLED])
    cards = _labelled(loaded, discovery, texts, report)
    write_run(out, discovery, cards, inputs=inputs, config=config, command=command, watch=watch)
    return discovery


def _labelled(
    loaded: Loaded, discovery: Discovery, texts: Texts | None, report: Report
) -> dict[str, Any]:
    """Cards of the graph's features; each feature's node takes its card's name."""
    corpus = prompt_texts(loaded.prompts)
    if texts is not None:
        blocks = token_blocks(texts(), loaded.model.tokenizer, length=EXAMPLE_BLOCK)
        corpus += block_texts(islice(blocks, EXAMPLE_TOKENS // EXAMPLE_BLOCK))
    report("examples", 0, 1)
    cards = make_cards(loaded.model, loaded.suite, ordered(discovery.graph), corpus)
    report("examples", 1, 1)
    for node, data in discovery.graph.nodes(data=True):
        if node.kind == "feature":
            data["label"] = name(cards[f"{node.site}/{node.feature}"])
    return cards


def verify_run(folder: Path, *, config: VerifyConfig, report: Report = silent) -> dict[str, Any]:
    """Check a run against ablation; writes verification.json, exact effects, and the page."""
    run = read_run(folder)
    loaded = run.open()
    record = verify(
        loaded.model,
        loaded.suite,
        loaded.prompts,
        run.graph,
        run.ranking,
        discovered=run.config,
        config=config,
        report=report,
    )
    graphs.save(run.graph, folder / "graph.json")
    write_json(record, folder / "verification.json")
    write_page(folder)
    return record


def ablate_run(
    folder: Path,
    *,
    features: str | None = None,
    top: int | None = None,
    outside: bool = False,
    to: To = "zero",
    label: str,
    prompts: Path | None = None,
    report: Report = silent,
) -> dict[str, Any]:
    """Ablate nodes, rerun the prompts, find the graph that is left; into `ablations/<label>/`.

    The nodes are named by `features`, or the graph's `top` strongest features, or everything
    that moves `outside` the graph.
    """
    run = read_run(folder)
    loaded = run.open()
    if features is not None:
        chosen = edits.parse_features(features, loaded.suite)
    elif outside:
        chosen = edits.outside(run.ranking, list(run.graph))
    else:
        chosen = tuple(n for n in ordered(run.graph) if n.kind == "feature")[:top]
    edit = edits.Edit(ablated=chosen, to=to)
    encoded = _prompts(loaded, prompts, run.config)
    result = edits.ablate(loaded.model, loaded.suite, encoded, edit, run.ranking, config=run.config)
    with edits.apply(loaded.model, loaded.suite, encoded, edit, config=run.config):
        after = discover(loaded.model, loaded.suite, encoded, config=run.config, report=report)
    for node, data in after.graph.nodes(data=True):
        if node in run.graph:
            data["label"] = run.graph.nodes[node]["label"]
    after.graph.graph["ablation"] = {"features": result["features"], "to": to}
    into = folder / "ablations" / label
    graphs.save(after.graph, into / "graph.json")
    write_json(result, into / "result.json")
    write_page(folder)
    return result


def compare_runs(a: Path, b: Path, out: Path) -> list[Difference]:
    """What changed between two graphs; writes the page and returns its rows."""
    first, second = (graphs.load(folder / "graph.json") for folder in (a, b))
    rows = differences(first, second)
    html = comparison_page(first, second, rows, names=(a.name or "A", b.name or "B"))
    write_atomically(out, lambda partial: partial.write_text(html, encoding="utf-8"))
    return rows


def render_run(folder: Path, formats: Sequence[str], nodes: int) -> list[Path]:
    """Write the page or figures of a run; figures of the curves too once it is verified.

    Raises `ValueError` listing the formats for another one.
    """
    run = read_run(folder)
    wanted = [f.strip() for f in formats]
    if unknown := set(wanted) - set(FORMATS):
        raise ValueError(
            f"cannot render to {', '.join(sorted(unknown))}: expected some of {', '.join(FORMATS)}"
        )
    written = []
    for suffix in wanted:
        if suffix == "html":
            write_page(folder)
            written.append(folder / "graph.html")
            continue
        figure(run.graph, folder / f"graph.{suffix}", max_nodes=nodes)
        written.append(folder / f"graph.{suffix}")
        if (record := verification_of(folder)) is not None:
            curves_figure(record, folder / f"verification.{suffix}")
            written.append(folder / f"verification.{suffix}")
    return written


def _prompts(loaded: Loaded, path: Path | None, config: DiscoverConfig) -> EncodedPrompts:
    if path is None:
        return loaded.prompts
    prompts = read_prompts(path)
    return encode_prompts(prompts, loaded.model.tokenizer, positions=config.positions)

"""What each verb for circuits does, as one function: inputs opened, work done, folder written."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits import graph as graphs
from circuits import tasks
from circuits.analysis import Analysis
from circuits.baseline_values import BaselineValue
from circuits.comparison import Difference, differences, different_origins
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.head_cards import make_head_cards
from circuits.discovery.methods import discover_by_method
from circuits.discovery.resume import NOTHING_KEPT, close_parts, open_parts
from circuits.discovery.sparse_feature import Discovery
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation, parse_features
from circuits.edits.edited import graph_left
from circuits.features.card import block_texts, make_cards, prompt_texts
from circuits.features.names import name_of_card
from circuits.graph import Node, ordered, write_json
from circuits.metrics.readout import MetricChoice
from circuits.prompts import (
    Positions,
    Prompt,
    WhenUnfit,
    encode_prompts,
    prompt_lines,
    write_prompts,
)
from circuits.render.compare_page import comparison_page
from circuits.render.document import groups_on_page
from circuits.render.exporters import FIGURE_FORMATS, exporters
from circuits.render.figure_config import FigureConfig
from circuits.runs.drawn import compared_with, drawn_of, hosted_at
from circuits.runs.folder import (
    Stopwatch,
    made_from,
    read_run,
    versions,
    write_page,
    write_pages,
    write_run,
)
from circuits.runs.inputs import Inputs, open_inputs
from circuits.runs.overwrite import (
    ABLATIONS,
    MADE_FROM,
    check_page,
    check_record,
    check_run,
    check_text,
    digest,
    is_made_from,
    signed,
)
from circuits.runs.pages import cards_beside, named_graph
from circuits.verification.replacement import cut_of
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen.bundled import language
from hooked_qwen.files import build_folder_atomically, content_hash, write_atomically
from hooked_qwen.identity import identity
from hooked_qwen.load import BUNDLED, load_tokenizer, local_folder
from hooked_qwen.notices import notify
from hooked_qwen.placement import ANYWHERE, Placement, placement_of
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import Corpus, texts_of
from hooked_qwen.tokens import Bos, token_blocks

EXAMPLE_TOKENS = 16_384
"Tokens of running text looked at for a feature's examples."
EXAMPLE_BLOCK = 64


def make_prompts(
    task: str,
    n: int,
    *,
    split: tasks.Split,
    seed: int,
    model: str,
    out: Path,
    force: bool = False,
) -> list[Prompt]:
    """Write a prompt set for `model`: in the language that it knows.

    Raises `ValueError` for an unknown task, where the tokenizer knows too few words, and where
    `out` holds something else.
    """
    prompts = tasks.make_for(model, task, n, split=split, seed=seed)
    encode_prompts(prompts, load_tokenizer(model), positions="sum")
    check_text(out, prompt_lines(prompts), force=force)
    write_prompts(prompts, out)
    return prompts


def one_prompt(
    clean: str, patch: str | None, answers: Sequence[str], wrongs: Sequence[str]
) -> Prompt:
    """A prompt given on the command line."""
    return Prompt(clean=clean, patch=patch, answer=tuple(answers), wrong=tuple(wrongs))


def reference_for(prompts: Sequence[Prompt]) -> BaselineValue:
    """What nodes are set to by default: the patch prompts', zero where there are none."""
    return "patch" if any(p.patch is not None for p in prompts) else "zero"


def positions_for(prompts: Sequence[Prompt], model: str, bos: Bos, unfit: WhenUnfit) -> Positions:
    """Kept apart where all prompts have one length; else lined up at their last tokens."""
    tokenizer = load_tokenizer(model)
    encoded = encode_prompts(prompts, tokenizer, positions="sum", bos=bos, unfit=unfit)
    shortest, longest = encoded.lengths
    return "keep" if shortest == longest else "end"


def discover_run(
    inputs: Inputs,
    out: Path,
    *,
    config: DiscoverConfig,
    given: Sequence[Prompt] | None = None,
    task: str | None = None,
    text: Sequence[str] = (),
    seed: int = 0,
    force: bool = False,
    resume: bool = False,
    placement: Placement = ANYWHERE,
    command: Sequence[str] = (),
    report: Report = silent,
) -> Discovery:
    """Find the circuit of a prompt set and write it to `out`.

    `given` are prompts that are no file yet: the run writes them where `inputs` says. `task` is
    what the set is called, by default the name of its file. `text` is
    where features' examples come from besides the prompts; the bundled model brings its own,
    drawn by `seed`. `resume` goes on with a run of several batches of prompts that was cut off.

    Raises `ValueError` where another run, a verification or ablations in `out` would be lost,
    unless by `force`.
    """
    watch = Stopwatch()
    source = made_from(inputs, config, seed, text, placement)
    check_run(out, lambda: source, force=force)
    if given is not None:
        check_text(Path(inputs.prompts), prompt_lines(given), force=force)
    texts = texts_of(text, seed=seed) if text else None
    loaded = open_inputs(inputs, config, given, placement=placement)
    analysis = loaded.analysis
    check_run(out, lambda: {"model_hash": identity(analysis.model)}, force=force)
    parts = NOTHING_KEPT
    if resume and callable(config.metric):
        raise ValueError(
            "a run whose metric is a Python function cannot be resumed: its parts are not kept"
        )
    in_parts = config.method == "sparse-feature" and not callable(config.metric)
    if resume and not in_parts:
        raise ValueError("a replacement graph is not kept in parts: run it without --resume")
    if len(analysis.prompts) > config.batch_size and in_parts:
        exactly = identified(analysis.model, source)
        parts = open_parts(out, exactly, resume=resume, force=force)
    discovery = discover_by_method(analysis, parts=parts, report=report)
    if given is None:
        discovery.graph.graph["task"] = task or Path(inputs.prompts).stem
    if texts is None and local_folder(inputs.model) == local_folder(BUNDLED):
        texts = partial(language.documents, seed=1 + seed)
    cards = label_features(analysis, discovery.graph, texts, report)
    heads = None
    if config.method == "replacement":
        heads = make_head_cards(analysis, discovery.graph, report)
    write_run(
        out,
        discovery,
        cards,
        inputs=inputs,
        config=config,
        command=command,
        watch=watch,
        placement=placement_of(analysis.model, placement.memory),
        seed=seed,
        text=text,
        given=given,
        heads=heads,
    )
    close_parts(out)
    return discovery


def identified(model: TransformerBridge, source: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's numbers to the last bit."""
    return {
        **source,
        "model_hash": identity(model),
        "versions": versions(),
        "device": placement_of(model).device,
        "threads": torch.get_num_threads(),
    }


def label_features(
    analysis: Analysis, graph: nx.DiGraph, texts: Corpus | None, report: Report = silent
) -> dict[str, Any]:
    """Cards of the graph's features; each feature's node takes its card's name.

    Examples come from the prompts, and from the first of the `texts` where there are any.
    """
    corpus = prompt_texts(analysis.prompts)
    if texts is not None:
        blocks = token_blocks(texts(), analysis.model.tokenizer, length=EXAMPLE_BLOCK)
        corpus += block_texts(islice(blocks, EXAMPLE_TOKENS // EXAMPLE_BLOCK))
    report("examples", 0, 1)
    cards = make_cards(analysis.model, analysis.suite, ordered(graph), corpus)
    report("examples", 1, 1)
    for node, data in graph.nodes(data=True):
        if node.kind == "feature":
            data["label"] = name_of_card(cards[f"{node.site}/{node.feature}"])
    return cards


def verify_run(
    folder: Path,
    *,
    config: VerifyConfig,
    held_out: Path | None = None,
    force: bool = False,
    metric: MetricChoice | None = None,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Check a run against ablation; writes verification.json, exact effects, and the page.

    `metric` is the run's, where that is a Python function. The run's own device and precision are
    taken unless `placement` says otherwise.

    Raises `ValueError` where a verification with other settings would be lost, unless by `force`.
    """
    run = read_run(folder).with_metric(metric)
    path = folder / "verification.json"
    source = {**asdict(config), "held_out_hash": held_out and content_hash(held_out)}
    source |= {"dtype": placement.dtype or run.placement.dtype}
    if not is_made_from(path, source | {"level": "quick"}):
        check_record(path, source, force=force)
    loaded = run.open(placement)
    record = verify(
        loaded.analysis,
        run.graph,
        run.ranking,
        config=config,
        held_out=None if held_out is None else loaded.others(held_out),
        groups=groups_on_page(run.graph, cards_beside(folder)),
        report=report,
    )
    for stale in folder.glob("verification.*"):
        stale.unlink()
    graphs.save(run.graph, folder / "graph.json")
    write_json(record | {MADE_FROM: source}, path)
    write_page(folder)
    return record


def ablate_run(
    folder: Path,
    *,
    features: str | None = None,
    top: int | None = None,
    outside: bool = False,
    to: BaselineValue = "zero",
    label: str,
    prompts: Path | None = None,
    seed: int | None = None,
    force: bool = False,
    metric: MetricChoice | None = None,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Ablate nodes, rerun the prompts, find the graph that is left; into `ablations/<label>/`.

    The nodes are named by `features`, or the graph's `top` strongest features, or everything
    `outside` the graph. `seed` draws the controls, by default the run's. `metric` is the run's,
    where that is a Python function. The run's own device and precision are taken unless
    `placement` says otherwise.

    Raises `ValueError` where another ablation of that name would be lost, unless by `force`.
    """
    into = folder / ABLATIONS / ablation_name(label)
    run = read_run(folder).with_metric(metric)
    loaded = run.open(placement)
    seed = run.seed if seed is None else seed
    analysis, ranking = cut_of(loaded.analysis, run.ranking)
    named = () if features is None else parse_features(features, analysis.suite)
    edit = ablation_of(run.graph, named, top, outside=outside, to=to)
    source = {
        "nodes": digest(*map(str, edit.inner)),
        "outside": edit.kept is not None,
        "to": to,
        "seed": seed,
        "dtype": placement.dtype or run.placement.dtype,
        "prompts_hash": prompts and content_hash(prompts),
    }
    check_record(into / "result.json", source, force=force)
    if prompts is not None:
        analysis = analysis.on(loaded.others(prompts))
    result = ablate(analysis, edit, ranking, seed=seed)
    left = graph_left(analysis, edit, run.graph, report=report)

    def build(partial: Path) -> None:
        graphs.save(left, partial / "graph.json")
        write_json(result | {MADE_FROM: source}, partial / "result.json")

    build_folder_atomically(into, build)
    write_pages(folder)
    return result


def ablation_of(
    graph: nx.DiGraph, named: tuple[Node, ...], top: int | None, *, outside: bool, to: BaselineValue
) -> Ablation:
    """What to ablate: the nodes `named`, the `top` features of the graph, or all `outside` it.

    Raises `ValueError` for more features than the graph has, and where nothing is named.
    """
    if named:
        return Ablation(ablated=named, to=to)
    if outside:
        return Ablation(kept=tuple(n for n in ordered(graph) if n.kind != "logit"), to=to)
    found = [n for n in ordered(graph) if n.kind == "feature"]
    if top is None or not 1 <= top <= len(found):
        raise ValueError(f"the graph has {len(found)} features: expected --top 1 to {len(found)}")
    return Ablation(ablated=tuple(found[:top]), to=to)


def ablation_name(name: str) -> str:
    """`name`, fit for one folder on any system; raises `ValueError` for one that is not."""
    if not re.fullmatch(r"[\w@+=,-][\w.@+=, -]{0,99}", name) or name[-1] in ". ":
        raise ValueError(
            f"{name!r} is no name for an ablation: it is one folder under {ABLATIONS}/, so write "
            "letters, digits and any of . _ - @ + = , without a . or a space at either end"
        )
    return name


def compare_runs(a: Path, b: Path, out: Path, *, force: bool = False) -> list[Difference]:
    """What changed between two graphs, files or in folders; writes the page and returns its rows.

    Raises `ValueError` where `out` is anything but a page of the same two, unless by `force`.
    """
    first, second = named_graph(a), named_graph(b)
    rows = differences(first, second)
    source = digest(*(path.resolve().as_posix() for path in (a, b)))
    check_page(out, source, force=force)
    for line in different_origins(first, second):
        notify(line)
    cards = {**cards_beside(b), **cards_beside(a)}
    html = comparison_page(first, second, rows, names=names_of(a, b), cards=cards)
    text = signed(html, source)
    write_atomically(out, lambda partial: partial.write_text(text, encoding="utf-8"))
    return rows


def names_of(a: Path, b: Path) -> tuple[str, str]:
    """Names of two runs, with the folders above where these tell what the last does not."""
    first, second = (folder.resolve().parts[1:] for folder in (a, b))
    for length in range(1, max(len(first), len(second)) + 1):
        names = ["/".join(parts[-length:]) for parts in (first, second)]
        if names[0] != names[1]:
            return names[0], names[1]
    return "A", "B"


def render_run(
    folder: Path,
    formats: Sequence[str],
    nodes: int,
    *,
    figure: FigureConfig | None = None,
    groups: Path | None = None,
    against: Path | None = None,
    features_url: str | None = None,
) -> list[Path]:
    """Write the page, figures or files for other programs of a run, or of one of its ablations.

    Once it is verified, figures of the curves too. `groups` is a saved state of the page, whose
    groups, pinned nodes and labels the figure has. `against` is another run: the figure has both.
    `features_url` is where the features of `neuronpedia` will be hosted.

    Raises `ValueError` listing the formats for another one, and for no address of the web.
    """
    formats = [name.strip() for name in formats]
    chosen = exporters(formats)
    hosted = hosted_at(features_url, formats)
    if against and (others := set(formats) - set(FIGURE_FORMATS)):
        raise ValueError(
            f"two circuits are drawn as {', '.join(FIGURE_FORMATS)}, got {', '.join(others)}: "
            "their page is `circuits compare`"
        )
    drawn = drawn_of(folder, nodes=nodes, figure=figure, groups=groups)
    if against:
        drawn = compared_with(drawn, against)
    drawn = replace(drawn, features_url=hosted)
    return list(dict.fromkeys(path for name, export in chosen for path in export(drawn, name)))

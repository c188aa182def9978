"""What each verb for circuits does, as one function: inputs opened, work done, folder written."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from circuits import edit as edits
from circuits import graph as graphs
from circuits import tasks
from circuits.answers import with_own_answers
from circuits.attribution.states import Reference
from circuits.cards import block_texts, make_cards, name, prompt_texts
from circuits.compare import Difference, differences, different_origins
from circuits.discover import Discovery, discover
from circuits.faithfulness import To
from circuits.graph import ordered, write_json
from circuits.prompts import EncodedPrompts, Prompt, encode_prompts, read_prompts, write_prompts
from circuits.ranking import DiscoverConfig
from circuits.render.compare_page import comparison_page
from circuits.render.curves import curves_figure
from circuits.render.figure import figure
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
from circuits.suites import Texts, texts_of
from circuits.verify import VerifyConfig, verify
from hooked_qwen.bundled import language
from hooked_qwen.files import write_atomically
from hooked_qwen.load import BUNDLED, load_tokenizer, local_folder
from hooked_qwen.notices import notify
from hooked_qwen.tokens import token_blocks

EXAMPLE_TOKENS = 16_384
"Tokens of running text looked at for a feature's examples."
EXAMPLE_BLOCK = 64
FORMATS = ("html", "svg", "pdf")


def make_prompts(
    task: str, n: int, *, split: language.Split, seed: int, model: str, out: Path
) -> list[Prompt]:
    """Write a prompt set for `model`: of the bundled English for the bundled model, else English.

    Raises `ValueError` for an unknown task, and where the tokenizer knows too few words.
    """
    tokenizer = load_tokenizer(model)
    if local_folder(model) == local_folder(BUNDLED):
        prompts = _bundled_prompts(task, n, split, seed)
    else:
        prompts = tasks.make(task, n, tokenizer, split=split, seed=seed)
    encode_prompts(prompts, tokenizer, positions="sum")
    write_prompts(prompts, out)
    return prompts


def _bundled_prompts(task: str, n: int, split: language.Split, seed: int) -> list[Prompt]:
    return [
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


def one_prompt(
    out: Path, clean: str, patch: str | None, answers: Sequence[str], wrongs: Sequence[str]
) -> Path:
    """Write a prompt given on the command line to `out/prompts.jsonl`, where the run finds it."""
    prompt = Prompt(clean=clean, patch=patch, answer=tuple(answers), wrong=tuple(wrongs))
    path = out / "prompts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_prompts([prompt], path)
    return path


def reference_for(prompts: Path) -> Reference:
    """What nodes are moved to by default: the patch prompts', zero where there are none."""
    return "patch" if any(p.patch is not None for p in read_prompts(prompts)) else "zero"


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


def verify_run(
    folder: Path,
    *,
    config: VerifyConfig,
    held_out: Path | None = None,
    report: Report = silent,
) -> dict[str, Any]:
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
        held_out=None if held_out is None else _prompts(loaded, held_out, run.config),
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
    for line in different_origins(first, second):
        notify(line)
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
    encoded = encode_prompts(prompts, loaded.model.tokenizer, positions=config.positions)
    return with_own_answers(loaded.model, encoded)

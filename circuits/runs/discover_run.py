"""`circuits discover`: inputs opened, the circuit found, its features named, the run written."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.head_cards import make_head_cards
from circuits.discovery.methods import discover_by_method
from circuits.discovery.resume import NOTHING_KEPT, close_parts, open_parts
from circuits.discovery.sparse_feature import Discovery
from circuits.features.card import block_texts, make_cards, prompt_texts
from circuits.features.names import name_of_card
from circuits.graph import ordered
from circuits.prompts import (
    Prompt,
    prompt_lines,
)
from circuits.runs.folder import made_from, versions, write_run
from circuits.runs.inputs import Inputs, open_inputs
from circuits.runs.overwrite import (
    check_run,
    check_text,
)
from circuits.runs.stopwatch import Stopwatch
from hooked_qwen.bundled import language
from hooked_qwen.identity import identity
from hooked_qwen.model_place import BUNDLED, local_folder
from hooked_qwen.placement import ANYWHERE, Placement, placement_of
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import Corpus, texts_of
from hooked_qwen.tokens import token_blocks

EXAMPLE_TOKENS = 16_384
"Tokens of running text looked at for a feature's examples."
EXAMPLE_BLOCK = 64


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

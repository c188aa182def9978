"""`circuits ablate`: nodes cut out of a run, its prompts run again, the graph that is left."""

import re
from pathlib import Path
from typing import Any

import networkx as nx

from circuits import graph as graphs
from circuits.baseline_values import BaselineValue
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation, parse_features
from circuits.edits.edited import graph_left
from circuits.graph import Node, ordered, write_json
from circuits.metrics.readout import MetricChoice
from circuits.runs.finished_run import read_run
from circuits.runs.folder import write_pages
from circuits.runs.overwrite import (
    ABLATIONS,
    MADE_FROM,
    check_record,
    digest,
)
from circuits.verification.replacement import cut_of
from hooked_qwen.files import build_folder_atomically, content_hash
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent


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

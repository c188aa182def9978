"""A caption for a figure in LaTeX: the question, the answer's numbers, what it was found with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.render.figure.drawing import Picture
from circuits.render.figure.legend import folded_edges
from circuits.render.figure.tikz import escaped
from circuits.render.interventions import Intervention
from circuits.render.layout import depth
from circuits.render.stance_words import stance_words
from circuits.render.words import acts_on_target, answers_in_words, counted
from hooked_qwen.files import write_text_atomically

CODEPOINT = r"\providecommand\codepoint[2]{\ifdefined\Umathchar#2\else{\ttfamily\char92 u#1}\fi}"


def write_caption(
    shown: Picture,
    graph: nx.DiGraph,
    verification: Mapping[str, Any] | None,
    path: Path,
    *,
    intervention: Intervention | None = None,
) -> None:
    """Write the caption of a picture of `graph`, whole or not at all."""
    text = latex_caption(shown, graph, verification, intervention)
    write_text_atomically(path, text)


def latex_caption(
    shown: Picture,
    graph: nx.DiGraph,
    verification: Mapping[str, Any] | None = None,
    intervention: Intervention | None = None,
) -> str:
    """A `\\caption`; what the graph or its verification does not say is left out."""
    meta = graph.graph
    sentences = [
        _question(meta),
        *_done(intervention),
        *_found(verification),
        _size(shown, graph),
        _made_with(meta),
        _key(graph),
    ]
    words = escaped(" ".join(filter(None, sentences)))
    return f"{CODEPOINT}\n\\caption{{{words}}}\n"


def _question(meta: Mapping[str, Any]) -> str:
    title = str(meta.get("title") or "Feature circuit")
    metric, answers, n = meta.get("metric"), answers_in_words(meta), meta.get("n_prompts")
    ends = [meta.get(f"{end}_metric") for end in ("clean", "patch")]
    words = title + (f" of the {metric}" if metric else "")
    words += f" ({answers})" if answers else ""
    words += f" on {counted(n, 'prompt')}" if n else ""
    clean, patch = (None if end is None else _number(end) for end in ends)
    words += f": {clean} on the clean prompts" if clean else ""
    return words + (f", {patch} on the patched" if clean and patch else "") + "."


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _done(intervention: Intervention | None) -> list[str]:
    if intervention is None:
        return []
    before, after = _number(intervention.before), _number(intervention.after)
    return [
        f"Nodes with a dark strip were intervened on ({intervention.what}), which takes the metric "
        f"from {before} to {after}."
    ]


def _found(verification: Mapping[str, Any] | None) -> list[str]:
    check = verification or {}
    kept, baseline = check.get("each_adds"), (check.get("curves") or {}).get("baseline")
    if not kept:
        return []
    ends = kept.get("interval")
    span = "" if ends is None else f" (95 % interval {_number(ends[0])} to {_number(ends[1])})"
    where = {None: "", "zero": ", other nodes at zero"}.get(
        baseline, f", others at their {baseline}"
    )
    return [f"Faithfulness of the graph's {counted(kept['circuit'], 'node')}: "
            f"{_number(kept['faithfulness'])}{span}{where}."]  # fmt: skip


def _size(shown: Picture, graph: nx.DiGraph) -> str:
    inside = sum(len(data.get("members") or [0]) for _, data in shown.circuit.nodes(data=True))
    folded = folded_edges(shown.circuit)
    drawn = shown.circuit.number_of_edges() - len(folded)
    size = (
        f"Shown: {inside} of {counted(len(graph), 'node')} and "
        f"{drawn} of {counted(graph.number_of_edges(), 'edge')}."
    )
    if not folded:
        return size
    return (
        f"{size} A line with a circle stands for a path by way of nodes that are not shown, and is "
        "as wide as its weakest edge."
    )


def _made_with(meta: Mapping[str, Any]) -> str:
    model = meta.get("model")
    name = model.get("name") if isinstance(model, Mapping) else model
    sites = sorted(meta.get("dictionaries") or {}, key=depth)
    kinds = list(dict.fromkeys(site.partition(".")[0] for site in sites))
    layers = [int(layer) for site in sites if (layer := site.partition(".")[2]).isdigit()]
    words = [f"Model: {name}"] if name else []
    if sites:
        many = counted(len(sites), "dictionary", "dictionaries")
        span = f" of layers {min(layers)} to {max(layers)}" if layers else ""
        words.append(f"{many} ({', '.join(kinds)}{span})")
    if estimator := meta.get("estimator"):
        words.append(f"effects by {estimator}")
    return "; ".join(words) + "." if words else ""


def _key(graph: nx.DiGraph) -> str:
    supports, opposes = (
        ("raises its target", "lowers it") if acts_on_target(graph.graph) else stance_words(graph)
    )
    return (
        f"A line with an arrowhead {supports}, a dashed one with a bar {opposes}. "
        "Boxes are features, called by layer and index; pointed boxes are what "
        "the dictionary leaves out; columns are tokens."
    )

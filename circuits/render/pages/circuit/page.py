"""The page of one circuit: `page(graph)` is the text of a self-contained HTML file.

Numbers on the page are *supports*: the effect with its sign flipped (as it is, for a divergence),
so that a node which helps the answer counts as positive. Units are those of the metric.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, SupportsFloat

import networkx as nx

from circuits.discovery.verdicts import of_verification
from circuits.graph import Node
from circuits.render.interventions import Intervention
from circuits.render.pages.circuit.attention import attention
from circuits.render.pages.circuit.document import document
from circuits.render.pages.heading import heading, model_name, title_of
from circuits.render.pages.links import Links
from circuits.render.stance_words import stance_words
from circuits.render.words import (
    NEUTRAL,
    OPPOSES,
    SUPPORTS,
    acts_on_target,
    answers_in_words,
    edge_support,
    readable,
    row_name,
    stance,
    support,
)
from hooked_qwen.percents import percent

EXAMPLES = 8  # top examples kept per card
WINDOW = 48  # tokens kept around an example's peak
TOKENS = 12  # promoted and suppressed tokens kept per card

ABLATED = {"name": "ablated", "label": "ablated", "dashed": True}
RAISES = "; an edge is coloured by whether it raises or lowers its target"
FIELDS = [
    {"key": "activation", "label": "activation", "missing": "–"},
    {"key": "support", "label": "support, estimate", "signed": True, "missing": "–"},
    {"key": "exact", "label": "support, exact", "signed": True, "missing": "not verified"},
]
OF_REPLACEMENT = [
    {"key": "activation", "label": "activation", "missing": "–"},
    {"key": "support", "label": "support, all paths", "signed": True, "missing": "–"},
    {"key": "influence", "label": "influence", "missing": "–"},
    {"key": "pre_activation", "label": "pre-activation", "missing": "–", "apart": True},
    {"key": "bias", "label": "bias", "missing": "–", "apart": True},
]
"Of the nodes of a replacement graph. What stands `apart` is not summed over a group."


def page(
    graph: nx.DiGraph,
    *,
    cards: Mapping[str, Any] | None = None,
    verification: Mapping[str, Any] | None = None,
    ablations: Mapping[str, Any] | None = None,
    heads: Mapping[str, Any] | None = None,
    intervention: Intervention | None = None,
    title: str | None = None,
    links: Links | None = None,
) -> str:
    """One offline HTML page of `graph`, with pyvis inside.

    `cards` maps `SITE/FEATURE` to what is known of that feature, `verification` is the record of
    `circuits verify`, `ablations` maps a run's name to its result, `heads` is what the heads of a
    replacement graph do, `intervention` is what left this graph, `links` are addresses of other
    pages. Over 2,000 nodes the page draws the strongest and
    says so.

    Raises `ValueError` when a number is not finite.
    """
    return document(
        graph,
        title=title or title_of(graph.graph),
        facts=[
            *_done(intervention),
            *facts(graph.graph),
            *_found(verification),
            *_told(graph.graph, verification),
        ],
        payload={
            "groups": _groups(graph),
            "fields": OF_REPLACEMENT if _is_replacement(graph.graph) else FIELDS,
            "ablates": not _is_replacement(graph.graph),
            "scored": _is_replacement(graph.graph),
            "units": str(graph.graph.get("metric") or "metric"),
            "note": RAISES if acts_on_target(graph.graph) else "",
            "verification": _flipped(verification, graph.graph) if verification else None,
            "ablations": dict(ablations) if ablations else None,
            "heads": _heads(graph.graph),
            "links": asdict(links) if links else None,
        },
        describe_node=lambda node: _describe(node, graph.nodes[node], graph.graph),
        describe_edge=lambda source, target: _describe_edge(
            graph.edges[source, target]["weight"], graph.graph
        ),
        cards={name: trimmed(card) for name, card in (cards or {}).items()},
        attention=attention(graph, heads),
        prompt=heading(graph.graph),
        links=links.head if links else [],
    )


def facts(meta: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the header says about a graph: pairs of term and value; absent keys are left out."""
    accuracy = meta.get("accuracy")
    terms = {
        "Task": meta.get("task"),
        "Model": model_name(meta),
        "Metric": _metric(meta),
        "Answers": answers_in_words(meta),
        "Prompts": meta.get("n_prompts"),
        "Right answer preferred": None if accuracy is None else percent(accuracy),
        "Estimator": meta.get("estimator"),
        "Graph": "replacement model, exact edges" if _is_replacement(meta) else None,
        "Positions": _positions(meta),
    }
    return [(term, str(value)) for term, value in terms.items() if value is not None]


def _positions(meta: Mapping[str, Any]) -> str | None:
    names = {"keep": "kept apart", "end": "lined up at the last token", "sum": "summed"}
    name, (shortest, longest) = names.get(str(meta.get("positions"))), _lengths(meta)
    return name and name + ("" if shortest == longest else f" ({shortest} to {longest} tokens)")


def _lengths(meta: Mapping[str, Any]) -> tuple[int, int]:
    """Tokens of the shortest and the longest prompt, equal where the graph does not say."""
    shortest, longest = meta.get("prompt_lengths") or (0, 0)
    return shortest, longest


def _done(intervention: Intervention | None) -> list[tuple[str, str]]:
    return [] if intervention is None else [("Intervention", intervention.said)]


def _found(verification: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What ablation found, and what it ablated to, which decides it."""
    check = verification or {}
    circuit, baseline = check.get("each_adds"), (check.get("curves") or {}).get("baseline")
    if not circuit or not baseline:
        return []
    ends = circuit.get("interval")
    span = "" if ends is None else f" ({ends[0]:.2f} to {ends[1]:.2f})"
    others = "zero" if baseline == "zero" else f"their {baseline}"
    kept = f"{circuit['faithfulness']:.2f}{span}".replace("-", "−")
    return [("Faithfulness of the graph", f"{kept}, other nodes at {others}")]


def _told(meta: Mapping[str, Any], verification: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What the numbers come to, in sentences."""
    verdicts = of_verification(verification) if verification and verification.get("curves") else []
    notes = [("Note", notice) for notice in meta.get("notices") or []]
    return [*notes, *(("Found", verdict) for verdict in verdicts)]


def trimmed(card: Mapping[str, Any]) -> dict[str, Any]:
    """A card cut to what fits a page: the top examples, each around its peak, short numbers."""
    return {
        **card,
        "promoted": _pairs(card.get("promoted")),
        "suppressed": _pairs(card.get("suppressed")),
        "examples": [_example(e) for e in list(card.get("examples") or [])[:EXAMPLES]],
    }


def _groups(graph: nx.DiGraph) -> list[dict[str, Any]]:
    """The entries of the legend."""
    supports, opposes = stance_words(graph)
    has_ablated = any(data.get("ablated") for _, data in graph.nodes(data=True))
    return [
        {"name": SUPPORTS, "label": supports, "dashed": False},
        {"name": OPPOSES, "label": opposes, "dashed": True},
        *([ABLATED] if has_ablated else []),
    ]


def _describe(node: Node, data: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    value = support(data.get("effect"), meta)
    group = NEUTRAL if node.kind == "logit" and not value else stance(value)
    return {
        "group": "ablated" if data.get("ablated") else group,
        "activation": data.get("activation"),
        "support": value,
        "exact": support(data.get("exact"), meta),
        **(_kept_as_is(data) if _is_replacement(meta) else {}),
        **({"label_by": str(data["label_by"])} if data.get("label_by") else {}),
    }


def _is_replacement(meta: Mapping[str, Any]) -> bool:
    return meta.get("method") == "replacement"


def _kept_as_is(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: data.get(name) for name in ("influence", "pre_activation", "bias")}


def _describe_edge(weight: SupportsFloat, meta: Mapping[str, Any]) -> dict[str, Any]:
    value = edge_support(weight, meta)
    return {"group": stance(value), "support": value}


def _heads(meta: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the page says of a graph's heads at first, None where the graph knows of none."""
    if "heads" not in meta:
        return None
    return {**meta["heads"], "columns": [readable(str(t)) for t in meta.get("columns") or []]}


def _flipped(verification: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    """The record with its effects as supports, like every other number on the page."""
    flipped = dict(verification)
    for part, rows in (("nodes", "points"), ("pool", "missed")):
        record = dict(verification.get(part) or {})
        record[rows] = [
            {**p, "estimate": support(p["estimate"], meta), "exact": support(p["exact"], meta)}
            for p in record.get(rows) or []
        ]
        if part in verification:
            flipped[part] = record
    if "groups" in verification:
        flipped["groups"] = [_group_score(group, meta) for group in verification["groups"]]
    for part in ("curves", "held_out"):
        if part in verification:
            flipped[part] = _with_row_names(verification[part])
    return flipped


def _group_score(group: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, Any]:
    ends = group.get("interval")
    return {
        "members": group["members"],
        "support": support(group["effect"], meta),
        "sum": support(group["sum"], meta),
        "interval": ends and sorted(support(end, meta) or 0.0 for end in ends),
    }


def _with_row_names(curves: Mapping[str, Any]) -> dict[str, Any]:
    """Curves whose rows have the names that a reader is given."""
    return dict(curves) | {
        field: {row_name(name): row for name, row in curves[field].items()}
        for field in ("rows", "areas")
        if field in curves
    }


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    values = [float(value) for value in example["values"]]
    tokens = [readable(str(token)) for token in example["tokens"]]
    peak = max(range(len(values)), key=values.__getitem__, default=0)
    start = max(0, min(peak - WINDOW * 3 // 4, len(tokens) - WINDOW))
    stop = start + WINDOW
    return {
        "tokens": tokens[start:stop],
        "values": [_short(value) for value in values[start:stop]],
        "cut": [start > 0, stop < len(tokens)],
    }


def _pairs(pairs: Sequence[Sequence[Any]] | None) -> list[list[Any]]:
    return [[readable(str(t)), _short(float(score))] for t, score in list(pairs or [])[:TOKENS]]


def _short(value: float) -> float | int:
    """`value` to three significant digits; a zero takes one character."""
    short = float(f"{value:.3g}")
    return int(short) if short == int(short) else short


def _metric(meta: Mapping[str, Any]) -> str | None:
    """The metric's name and its mean at both ends: `name, +3.21 clean → +0.4 patched`."""
    ends = {"clean": meta.get("clean_metric"), "patched": meta.get("patch_metric")}
    means = [
        f"{value:+.3g} {end}".replace("-", "−") for end, value in ends.items() if value is not None
    ]
    name = meta.get("metric")
    return ", ".join(filter(None, [name and str(name), " → ".join(means)])) or None

"""The page of an edit that was rerun: all that it changes, the graph before and after included.

Only what was run stands on it. Numbers of the graph are supports, as on every page of a graph.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from circuits.comparison import differences
from circuits.render.interventions import intervention_of
from circuits.render.pages.assets import html, script
from circuits.render.pages.circuit.compare_page import compared
from circuits.render.pages.circuit.page import trimmed
from circuits.render.words import readable

PARTS = ("prompts", "text", "generate", "side_effects")
MODULES = ("parts", "prompts", "text", "written", "effects", "main")
SCRIPTS = ("dom.mjs", "numbers.mjs", *(f"rerun/{name}.mjs" for name in MODULES))
SHEETS = ("rerun/rerun.css",)


@dataclass(frozen=True, kw_only=True, eq=False)
class Graphs:
    """The graph before and after the edit."""

    before: nx.DiGraph
    after: nx.DiGraph
    cards: Mapping[str, Any] = field(default_factory=dict)
    "of features, by SITE/FEATURE"


def rerun_page(record: Mapping[str, Any], *, title: str, graphs: Graphs | None = None) -> str:
    """One offline HTML page of a `rerun/1` record; raises `ValueError` on a NaN in it."""
    labels = {} if graphs is None else _labels(graphs)
    shown: dict[str, Any] = _readable(record)
    shown["operations"] = [
        {**row, "label": labels.get(row["node"].split("@")[0])} for row in shown["operations"]
    ]
    context: dict[str, Any] = {
        "title": title,
        "facts": _facts(record),
        "record": shown,
        "parts": [part for part in PARTS if part in record],
        "own": script(SCRIPTS),
    }
    if graphs is None:
        return html("rerun/rerun.html", scripts=(), sheets=SHEETS, **context)
    return compared(
        graphs.before,
        graphs.after,
        differences(graphs.before, graphs.after),
        names=("before", "after"),
        ablated="pinned by the edit",
        cards={name: trimmed(card) for name, card in graphs.cards.items()},
        page="rerun/rerun.html",
        sheets=("feature/feature.css", *SHEETS),
        **context,
    )


def _readable(value: Any) -> Any:
    """A record whose texts are as a page writes them."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, Mapping):
        return {name: _readable(part) for name, part in value.items() if name != "made_from"}
    return [_readable(part) for part in value] if isinstance(value, list | tuple) else value


def _labels(graphs: Graphs) -> dict[str, str]:
    """What the features of a graph are known by, by SITE/FEATURE."""
    return {
        f"{node.site}/{node.feature}": readable(str(data["label"]))
        for graph in (graphs.after, graphs.before)
        for node, data in graph.nodes(data=True)
        if node.kind == "feature" and data.get("label")
    }


def _facts(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    done = intervention_of(record)
    found = [] if done is None else [("Intervention", done.said)]
    found.append(("Model", str(record["model"])))
    if prompts := record.get("prompts"):
        found += [("Prompts", f"{prompts['n']:,}"), ("Metric", prompts["metric"])]
    if text := record.get("text"):
        found.append(("Text", f"{text['tokens']:,} tokens"))
    if written := record.get("generate"):
        found.append(("Generation", f"{len(written['prompts'])} x {written['tokens']} tokens"))
    if effects := record.get("side_effects"):
        found.append(("Side effects", f"{len(effects['behaviours'])} behaviours"))
    return found

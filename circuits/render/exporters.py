"""What `circuits render --to` writes: a row for each format.

A row is `module:function`, read when it is asked for. The function takes a `Drawn` and the name
of the format, writes files beside the run's own, and returns their paths.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.render.figure.figure_config import FigureConfig
from circuits.render.interventions import Intervention
from circuits.saved_state import SavedState

EXPORTERS: dict[str, str] = {
    "html": "circuits.runs.folder:export_page",
    "svg": "circuits.render.figure.figure:export_figures",
    "pdf": "circuits.render.figure.figure:export_figures",
    "png": "circuits.render.figure.figure:export_figures",
    "tex": "circuits.render.figure.figure:export_figures",
    "gexf": "circuits.render.export.export:export_for_networkx",
    "graphml": "circuits.render.export.export:export_for_networkx",
    "dot": "circuits.render.export.export:export_dot",
    "csv": "circuits.render.export.export:export_tables",
    "parquet": "circuits.render.export.export:export_tables",
    "neuronpedia": "circuits.render.export.viewers:export_for_viewer",
    "circuit-tracer": "circuits.render.export.viewers:export_for_viewer",
}

FIGURE_FORMATS = ("svg", "pdf", "png", "tex")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A run as an exporter sees it."""

    folder: Path
    graph: nx.DiGraph
    verification: Mapping[str, Any] | None
    "what `circuits verify` found, or None before it ran"
    nodes: int
    "nodes in a figure"
    name: str = "graph"
    "of the run"
    cards: Mapping[str, Any] | None = None
    "what is known of each feature, by SITE/FEATURE"
    figure: FigureConfig = field(default_factory=FigureConfig)
    state: SavedState | None = None
    "what a person grouped and named"
    stem: str = "graph"
    "what a figure's file is called"
    intervention: Intervention | None = None
    "what an ablation or an edit did, where one left this graph"
    features_url: str | None = None
    "where the feature files for Neuronpedia are hosted"


Exporter = Callable[[Drawn, str], list[Path]]


def exporters(formats: Sequence[str]) -> list[tuple[str, Exporter]]:
    """The exporter of each format; raises `ValueError` that lists the formats for another one."""
    wanted = [name.strip() for name in formats]
    if unknown := set(wanted) - set(EXPORTERS):
        raise ValueError(
            f"cannot render to {', '.join(sorted(unknown))}: "
            f"expected some of {', '.join(EXPORTERS)}"
        )
    rows = [(name, *EXPORTERS[name].split(":")) for name in wanted]
    return [(name, getattr(import_module(module), function)) for name, module, function in rows]

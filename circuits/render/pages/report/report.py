"""One page of some runs, for an appendix or a colleague: nothing to run, nothing to load.

It holds what was found and how well it stands: prompts, model and dictionaries, the graph as the
vector figure, what was verified with its controls, what was cut and run again, and the commands.
Effects are supports, as on every page.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import networkx as nx

from circuits.graph import ordered
from circuits.render.exporters import Drawn, exporters
from circuits.render.pages.assets import style, templates
from circuits.render.pages.circuit.page import facts
from circuits.render.pages.report.report_parts import (
    Figure,
    ReportPart,
    ReportTable,
    cuts_part,
    number,
    spanned,
    stability_part,
    verification_part,
)
from circuits.render.stance_words import stance_words
from circuits.render.words import (
    answers_in_words,
    caption,
    counted,
    readable,
    support,
)

ANSWERS = 3
"Tokens that a question names; the facts under it name more."
STRONGEST = 12
"Nodes that the table under the figure lists."


@dataclass(frozen=True, kw_only=True, eq=False)
class Reported:
    """A run with what lies in its folder and beside it."""

    name: str
    graph: nx.DiGraph
    prompts: Sequence[Mapping[str, str]] = ()
    "the first of them: clean, patch, answer, wrong"
    dictionaries: Sequence[Mapping[str, Any]] = ()
    "name, and the metrics that were measured where it was trained"
    verification: Mapping[str, Any] | None = None
    stability: Mapping[str, Any] | None = None
    ablations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    edited: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    "checks of graphs that were edited by hand"
    reruns: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    commands: Sequence[str] = ()
    origin: Sequence[tuple[str, str]] = ()
    "what the run was made from and with: hashes, versions, device, seed"


def report_page(runs: Sequence[Reported], *, title: str, nodes: int = 25) -> str:
    """One offline HTML page without scripts; figures show `nodes` nodes of each graph."""
    sections = [
        {
            "name": readable(run.name),
            "question": _question(run.graph),
            "summary": _summary(run),
            "facts": facts(run.graph.graph),
            "parts": [part for part in _parts(run, nodes) if part is not None],
        }
        for run in runs
    ]
    page, styles = templates().get_template("report/report.html"), [style("report/report.css")]
    return page.render(title=readable(title), sections=sections, styles=styles)


def _question(graph: nx.DiGraph) -> str:
    meta = graph.graph
    model = meta.get("model") or {}
    few = len((meta.get("answers") or {}).get("tokens") or ()) <= ANSWERS
    of = answers_in_words(meta) if few else "the right answers"
    metric = str(meta.get("metric") or "metric").replace("-", " ")
    asked = f"Which features of {model.get('name', 'the model')} carry its {metric}"
    return f"{asked}{f' of {of}' if of else ''}, and by which paths?"


def _summary(run: Reported) -> str:
    size = (
        f"{counted(run.graph.number_of_nodes(), 'node')}, "
        f"{counted(run.graph.number_of_edges(), 'edge')}"
    )
    kept = ((run.verification or {}).get("each_adds") or {}).get("faithfulness")
    return size + ("" if kept is None else f", faithfulness of the graph {number(kept)}")


def _parts(run: Reported, nodes: int) -> list[ReportPart | None]:
    drawn, (supports, opposes) = _figures(run, nodes), stance_words(run.graph)
    return [
        _prompts(run),
        _dictionaries(run),
        ReportPart(
            title="The circuit",
            lines=[str(line) for line in run.graph.graph.get("notices") or ()],
            figures=[
                Figure(
                    source=drawn[0],
                    caption=f"At most {nodes} of {_summary(run)}. Solid: {supports}; dashed: "
                    f"{opposes}. Edges run upwards, as wide as they are strong.",
                )
            ],
            tables=[_strongest(run.graph)],
        ),
        verification_part(run.verification, drawn[1:]),
        stability_part(run.stability),
        cuts_part(run.ablations, run.edited, run.reruns),
        ReportPart(
            title="How to reproduce",
            commands=run.commands,
            tables=[
                ReportTable(title="Made from and with", columns=("what", "which"), rows=run.origin)
            ],
        ),
    ]


def _figures(run: Reported, nodes: int) -> list[str]:
    """The graph, and the curves where they were measured."""
    ((suffix, export),) = exporters(["svg"])
    measured = run.verification if (run.verification or {}).get("curves") else None
    with TemporaryDirectory() as folder:
        drawn = Drawn(
            folder=Path(folder), graph=run.graph, verification=measured, nodes=nodes, name=run.name
        )
        return [
            f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode('ascii')}"
            for path in export(drawn, suffix)
        ]


def _prompts(run: Reported) -> ReportPart | None:
    if not run.prompts:
        return None
    n = run.graph.graph.get("n_prompts") or len(run.prompts)
    columns = ("clean", "patch", "answer", "wrong")
    return ReportPart(
        title="Prompts",
        tables=[
            ReportTable(
                title=f"{len(run.prompts)} of {counted(n, 'prompt')}",
                columns=columns,
                rows=[[readable(prompt[name]) for name in columns] for prompt in run.prompts],
            )
        ],
    )


def _dictionaries(run: Reported) -> ReportPart | None:
    if not run.dictionaries:
        return None
    measured = {"l0": "L0", "fvu": "FVU", "loss_recovered": "loss recovered", "dead": "dead"}
    rows = [
        [
            str(one["name"]),
            str(one.get("source", "–")),
            *(spanned(one.get(name), (one.get("intervals") or {}).get(name)) for name in measured),
        ]
        for one in run.dictionaries
    ]
    return ReportPart(
        title="Dictionaries",
        tables=[
            ReportTable(
                title="As measured where they were trained, 95 % intervals; – where that is not "
                "recorded",
                columns=("name", "reads", *measured.values()),
                rows=rows,
                numbers=(2, 3, 4, 5),
            )
        ],
    )


def _strongest(graph: nx.DiGraph) -> ReportTable:
    rows = []
    for node in [n for n in ordered(graph) if n.kind != "logit"][:STRONGEST]:
        data = graph.nodes[node]
        values = [support(data.get(name), graph.graph) for name in ("effect", "exact")]
        rows.append([str(node), caption(node, data), *map(number, values)])
    return ReportTable(
        title=f"The {len(rows)} strongest nodes: what each adds to the metric; – where it was not "
        "measured",
        columns=("node", "label", "estimate", "exact"),
        rows=rows,
        numbers=(2, 3),
    )

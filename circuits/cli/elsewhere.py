"""The verbs for what comes from other programs and goes to other people: import, report."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import Force, at_least, command_line
from circuits.cli.tables import console
from circuits.render.words import counted


def import_graph(
    graph: Annotated[
        Path, typer.Argument(help="The JSON of a graph of circuit-tracer's or Neuronpedia's.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the run to write.")],
    dictionaries: Annotated[
        str | None,
        typer.Option(help="Folder or hub name of its dictionaries, for `circuits edit make`."),
    ] = None,
    force: Force = False,
) -> None:
    """Read an attribution graph of another program as a run, to draw, compare and select from.

    Example: `circuits import austin.json --out austin`
    """
    from circuits.runs.imported import import_graph

    found = import_graph(graph, out, dictionaries=dictionaries, command=command_line(), force=force)
    console.print(
        f"{len(found)} nodes and {found.number_of_edges()} edges\n"
        f"graph {out / 'graph.json'}\npage  {out / 'graph.html'}",
        highlight=False,
    )


def report(
    runs: Annotated[list[Path], typer.Argument(help="Run folders.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("report.html"),
    nodes: Annotated[int, typer.Option(help="Nodes in each figure.")] = 25,
    title: Annotated[str, typer.Option(help="Title of the page; by default the runs' names.")] = "",
    force: Force = False,
) -> None:
    """Put all that is known of some runs onto one page, for an appendix or a colleague.

    Example: `circuits report run --out report.html`
    """
    from circuits.runs.report import report_runs

    at_least(1, nodes=nodes)
    found = report_runs(runs, out, nodes=nodes, title=title, force=force)
    console.print(f"{counted(len(found), 'run')}\npage {out}", highlight=False)

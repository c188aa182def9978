"""The verb for what comes from other programs: import."""

from pathlib import Path
from typing import Annotated

import typer

from circuits.cli.options import Force, command_line
from circuits.cli.tables import console


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

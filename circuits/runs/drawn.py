"""What is drawn: a run, or the graph that an ablation left, with what is known beside it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from circuits.render.exporters import Drawn
from circuits.render.figure.compared import comparison
from circuits.render.figure.figure_config import FigureConfig
from circuits.render.interventions import Intervention, intervention_of
from circuits.runs.finished_run import check_finished
from circuits.runs.folder import verification_of
from circuits.runs.pages import cards_beside, named_graph
from circuits.saved_state import read_state

RESULT = "result.json"


def drawn_of(
    folder: Path,
    *,
    nodes: int,
    figure: FigureConfig | None = None,
    groups: Path | None = None,
) -> Drawn:
    """The run in `folder`, or what an ablation or an edit left there; `groups` is a saved state.

    Raises `ValueError` for a folder of none of these, and for a file that is no state.
    """
    intervention = _intervention(folder)
    if intervention is None:
        check_finished(folder)  # a picture needs no ranking, which earlier versions wrote otherwise
    graph = named_graph(folder)
    return Drawn(
        folder=folder,
        graph=graph,
        verification=verification_of(folder),
        nodes=nodes,
        name=folder.resolve().name,
        cards=cards_beside(folder) or None,
        figure=figure or FigureConfig(),
        state=None if groups is None else read_state(groups, graph),
        intervention=intervention,
    )


def compared_with(drawn: Drawn, other: Path) -> Drawn:
    """Both graphs over each other, for figures only: `other` is a run, an ablation or a graph."""
    path = other if other.is_file() else other / "graph.json"
    names = (drawn.name, path.stem if other.is_file() else other.resolve().name)
    graph = comparison(drawn.graph, named_graph(path), names)
    return replace(drawn, graph=graph, verification=None, intervention=None, stem="comparison")


def hosted_at(address: str | None, formats: Sequence[str]) -> str | None:
    """Where Neuronpedia reads features; raises `ValueError` for what no browser there would."""
    if address is None:
        return None
    if "neuronpedia" not in formats:
        raise ValueError("--features-url is for Neuronpedia alone: add neuronpedia to --to")
    url = urlsplit(address)
    if url.scheme != "https" or not url.netloc or url.query or url.fragment:
        raise ValueError(
            f"--features-url is {address!r}, expected an https address of a folder that holds "
            "N.json, such as https://example.org/run/features"
        )
    return address.rstrip("/")


def _intervention(folder: Path) -> Intervention | None:
    """What an ablation or an edit did that left a graph in `folder`; None where none did.

    Raises `ValueError` where it left no graph.
    """
    if (folder / "manifest.json").exists() or not (folder / RESULT).exists():
        return None
    found = intervention_of(json.loads((folder / RESULT).read_text(encoding="utf-8")))
    if found is None or not (folder / "graph.json").exists():
        raise ValueError(
            f"{folder} has {RESULT} but no graph that is left: make it again with `circuits ablate "
            "RUN`, or `circuits edit apply EDIT --run RUN --out FOLDER`"
        )
    return found

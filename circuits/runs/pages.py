"""The pages of one run folder: what they call features, and how they lead to each other.

RUN/graph.html                      the graph
RUN/ablations/NAME/graph.html       the graph that is left under an ablation
RUN/features/suite.html             every feature of the dictionaries (`circuits suite --run RUN`)
RUN/features/SITE-INDEX.html        one feature (`circuits feature --run RUN`)
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import networkx as nx

from circuits import graph as graphs
from circuits.features.labels import LABELS, Label, labelled, merged, read_labels
from circuits.graph import ordered
from circuits.render.pages.links import Links, RunLinks, address
from circuits.runs.earlier import told
from circuits.runs.overwrite import ABLATIONS

GRAPH, PAGE, CARDS, MANIFEST = "graph.json", "graph.html", "cards.json", "manifest.json"
FEATURES = "features"
"Where the pages of features stand in a run folder, unless the caller says otherwise."
SUITE = "suite.html"


def run_of(folder: Path) -> Path | None:
    """The run that a folder is, or is part of: an ablation's, or that of the features' pages."""
    folder = folder.resolve()
    for above in (folder, *folder.parents[:2]):
        if (above / MANIFEST).is_file() and (above / GRAPH).is_file():
            return above
    return None


def named_graph(path: Path) -> nx.DiGraph:
    """A graph, by file or folder, whose features are called as people and models call them."""
    file = path if path.is_file() else path / GRAPH
    graph, run = graphs.load(file), run_of(file.parent)
    if run is not None:
        graph = told(graph, read_from_run(run / MANIFEST))
    return labelled(graph, labels_of(file.parent))


def labels_of(folder: Path) -> dict[str, Label]:
    """What people and models say: beside the dictionaries of the folder's run, and in the run."""
    run = run_of(folder)
    if run is None:
        return read_labels(folder / LABELS)
    dictionaries = read_from_run(run / MANIFEST).get("dictionaries_path")
    beside = labels_beside(str(dictionaries)) if dictionaries else {}
    return merged([beside, read_labels(run / LABELS)])


def labels_beside(dictionaries: str) -> dict[str, Label]:
    """The labels in a local folder of dictionaries."""
    folder = Path(dictionaries)
    return read_labels(folder / LABELS) if folder.is_dir() else {}


def labels_for(dictionaries: str, run: Path | None) -> dict[str, Label]:
    """What people and models say of features of dictionaries, and of those of a run."""
    return merged([labels_beside(dictionaries), {} if run is None else labels_of(run)])


def feature_names(dictionaries: str, run: Path | None = None) -> dict[str, str]:
    """What features are called by people and models, and in the graph of a run."""
    said = {key: label.text for key, label in labels_for(dictionaries, run).items()}
    return said if run is None else said | names_of_features(run)


def names_of_features(run: Path) -> dict[str, str]:
    """What a run's graph calls each of its features."""
    graph = named_graph(run)
    return {
        f"{node.site}/{node.feature}": data["label"]
        for node, data in graph.nodes(data=True)
        if node.kind == "feature" and data.get("label")
    }


def cards_beside(path: Path) -> Mapping[str, Any]:
    """The cards of the run that a graph belongs to; none where there is no such run."""
    folder = path.parent if path.is_file() else path
    cards = (run_of(folder) or folder) / CARDS
    return read_from_run(cards) if cards.is_file() else {}


def links_of(run: Path) -> Links:
    """Where a run's page leads to, by what there is by now."""
    features = run / FEATURES
    pages = {}
    for page in sorted(features.glob("*-*.html")):
        site, _, index = page.stem.rpartition("-")
        pages[f"{site}/{index}"] = address(page, run)
    suite = features / SUITE
    left = sorted((run / ABLATIONS).glob(f"[!.]*/{PAGE}"))
    return Links(
        suite=address(suite, run) if suite.exists() else None,
        features=pages,
        left={page.parent.name: address(page, run) for page in left},
    )


def links_of_left(folder: Path, run: Path) -> Links:
    """Where the page of what an ablation leaves leads to: the graph before, and features."""
    found = links_of(run)

    def from_here(place: str) -> str:
        return f"{address(run / PAGE, folder).removesuffix(PAGE)}{place}"

    return Links(
        before=from_here(PAGE),
        suite=found.suite and from_here(found.suite),
        features={name: from_here(page) for name, page in found.features.items()},
    )


def run_links(run: Path | None, out: Path) -> RunLinks | None:
    """Where pages of features in `out` lead to: a run's graph, and the page of all features."""
    if run is None:
        return None
    nodes: dict[str, list[str]] = {}
    for node in ordered(graphs.load(run / GRAPH)):
        if node.kind == "feature":
            nodes.setdefault(f"{node.site}/{node.feature}", []).append(str(node))
    suite = out / SUITE
    return RunLinks(
        graph=address(run / PAGE, out),
        nodes=nodes,
        suite=SUITE if suite.exists() else None,
    )


def read_from_run(path: Path) -> Any:
    """What a file of a run holds; raises `ValueError` where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is missing or damaged ({error}): run the command again") from None


def feature_pages(page: Path, features: Iterable[str]) -> dict[str, str]:
    """Addresses of features' pages from a page beside them, or beside their folder.

    A feature's own, else its card on the page of all features, where there is one.
    """
    here, found = page.parent, {}
    folders = [folder for folder in (here, here / FEATURES) if folder.is_dir()]
    for folder in folders:
        suite = folder / SUITE
        for feature in features:
            own = folder / f"{feature.replace('/', '-')}.html"
            if own.is_file():
                found[feature] = address(own, here)
            elif suite.is_file():
                found.setdefault(
                    feature, f"{address(suite, here)}#feature={quote(feature, safe='')}"
                )
    return found

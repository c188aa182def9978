"""A graph of another program as a run: drawn and compared as ours are.

There is no model and no dictionary behind it, so what needs these says so and stops; `edit make`
takes it where the user has the dictionaries and names them.
"""

from collections.abc import Sequence
from pathlib import Path

import networkx as nx

from circuits import graph as graphs
from circuits.attribution.node_effects import NodeEffects
from circuits.attribution_graphs import read_attribution_graph, read_view
from circuits.discovery.config import DiscoverConfig
from circuits.graph import ordered, write_json
from circuits.runs.folder import remove_run, versions, write_page
from circuits.runs.overwrite import RUN, VIEW, check_run
from circuits.runs.ranking_file import RANKING, write_ranking
from circuits.runs.stopwatch import Stopwatch
from circuits.saved_state import as_json
from hooked_qwen.files import content_hash
from hooked_qwen.notices import notify
from saes.suite import hash_of, pinned


def import_graph(
    path: Path,
    out: Path,
    *,
    dictionaries: str | None = None,
    command: Sequence[str] = (),
    force: bool = False,
) -> nx.DiGraph:
    """Write the attribution graph in a file as a run, what is pinned and grouped beside it.

    Raises `ValueError` for a file of another form, and where another run, a verification or
    ablations in `out` would be lost, unless by `force`.
    """
    watch = Stopwatch()
    if not path.is_file():
        raise ValueError(f"there is no file at {path}: name the JSON of an attribution graph")
    graph, view = read_attribution_graph(path), read_view(path)
    source = {
        "imported": path.name,
        "imported_hash": content_hash(path),
        "dictionaries_hash": None if dictionaries is None else hash_of(dictionaries),
    }
    check_run(out, lambda: source, force=force)
    for line in graph.graph.get("notices") or ():
        notify(line)
    out.mkdir(parents=True, exist_ok=True)
    remove_run(out)
    graphs.save(graph, out / "graph.json")
    ranked = [n for n in ordered(graph) if n.kind in ("feature", "error")]
    names = sorted({node.site for node in ranked})
    effects = [(node, graph.nodes[node]["effect"] or 0.0) for node in ranked]
    write_ranking(NodeEffects.listed(names, effects), out / RANKING)
    write_json({}, out / "cards.json")
    if view.pinned or view.groups:
        write_json(as_json(view), out / VIEW)
    write_page(out)
    model = graph.graph.get("model") or {}
    manifest = {
        "schema": RUN,
        "command": list(command),
        "versions": versions(),
        "model_path": str(model.get("name")),
        "dictionaries_path": "" if dictionaries is None else pinned(dictionaries),
        "prompts_path": "",
        "model_hash": model.get("hash"),
        # What the file was found with is in it or nowhere: these are the defaults.
        "config": DiscoverConfig().record() | {"mlp": "sae", "unfit": "refuse"},
        **source,
        **watch.reading(),
    }
    write_json(manifest, out / "manifest.json")
    return graph

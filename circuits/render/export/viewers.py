"""A graph in the attribution-graph JSON that Neuronpedia and circuit-tracer's own viewer open.

    FOLDER/neuronpedia/SLUG.json          the graph, to be uploaded
    FOLDER/neuronpedia/features/N.json    a feature each, to be hosted
    FOLDER/circuit-tracer/...             the same for its viewer, and graph-metadata.json

A file for each, since no name of a model suits both: circuit-tracer's viewer takes it for the
place of the features, and Neuronpedia takes no `/` in it. Rules that no schema states, found by
running the two viewers, stand where they are kept.

Differs from our files in sign: a weight is positive where the source supports its target.
"""

import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.discovery.prune import influence
from circuits.graph import Node, as_json, ordered, write_json
from circuits.render.export.viewer_features import viewer_features
from circuits.render.export.viewer_places import Places
from circuits.render.exporters import Drawn
from circuits.render.words import caption, edge_support, readable
from circuits.saved_state import SavedState
from hooked_qwen.files import build_folder_atomically
from hooked_qwen.notices import notify

NEURONPEDIA, CIRCUIT_TRACER = "neuronpedia", "circuit-tracer"
VIEWERS = (NEURONPEDIA, CIRCUIT_TRACER)
OWN = "qwen_circuits"
"Where a node, and the metadata, hold what the format has no field for; viewers ignore objects."
LOCAL_FEATURES = "./data/features"
"Where the pages of circuit-tracer's viewer find the folder `features` beside the graph."
OUTPUT = 40
"Characters of an output's label: viewers write it across the picture."
OF_ITS_OWN = ("gemma-2-2b", "qwen3-4b")
"Models for which Neuronpedia shows its own features, wherever a graph says that others are."
INERT = str.maketrans({"<": "‹", ">": "›", '"': "”"})
"Both viewers put labels into the page as markup."


def export_for_viewer(drawn: Drawn, viewer: str) -> list[Path]:
    """Write the folder of a viewer, whole or not at all."""
    into = drawn.folder / viewer
    slug = _plain_name(drawn.name) or "graph"
    url = drawn.features_url if viewer == NEURONPEDIA else None
    record = viewer_graph(drawn.graph, viewer, slug=slug, state=drawn.state, features_url=url)
    if url and (model := record["metadata"]["scan"]) in OF_ITS_OWN:
        notify(f"Neuronpedia shows its own features in graphs of {model!r}, not those at {url}")
    features = viewer_features(drawn.graph, drawn.cards or {})

    def build(partial: Path) -> None:
        write_json(record, partial / f"{record['metadata']['slug']}.json")
        if viewer == CIRCUIT_TRACER:
            write_json({"graphs": [record["metadata"]]}, partial / "graph-metadata.json")
        (partial / "features").mkdir()
        for number, feature in features.items():
            write_json(feature, partial / "features" / f"{number}.json")

    build_folder_atomically(into, build)
    return [into]


def viewer_graph(
    graph: nx.DiGraph,
    viewer: str,
    *,
    slug: str,
    state: SavedState | None = None,
    features_url: str | None = None,
) -> dict[str, Any]:
    """The graph as one of `VIEWERS` reads it.

    The prompt is that of the graph's columns. Edges are in the graph's own units. What a person
    pinned, grouped and named in a `state` is pinned, grouped and named there. `features_url` is
    where Neuronpedia finds N.json of feature N.
    """
    state = state or SavedState()
    tokens = _tokens(graph)
    ours = as_json(graph)
    records = {node["id"]: node for node in ours["nodes"]}
    shares = cumulative_influence(graph)
    places = Places.of(graph, len(tokens))
    nodes = [
        {
            **places.fields(node),
            "clerp": _label(graph, node, state.labels.get(node)),
            "influence": shares.get(node),
            "activation": records[str(node)]["activation"],
            "token_prob": _weight(graph, node) if node.kind == "logit" else 0.0,
            "is_target_logit": node.kind == "logit",
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            OWN: records[str(node)],
        }
        for node in ordered(graph)
    ]
    ids = {node: places.fields(node)["node_id"] for node in graph}
    more = {(edge["source"], edge["target"]): edge for edge in ours["edges"]}
    links = [
        {"source": ids[u], "target": ids[v], "weight": edge_support(weight, graph.graph)}
        | _beside(more[str(u), str(v)])
        for u, v, weight in graph.edges(data="weight")
    ]
    links.sort(key=lambda link: (-abs(link["weight"]), link["source"], link["target"]))
    metadata = _metadata(graph, viewer, tokens, slug)
    if shares:
        # Left out and not null where it is not known: null is refused.
        metadata["node_threshold"] = 1.0
    if features_url:
        metadata["feature_details"] = {"feature_json_base_url": features_url}
    return {"metadata": metadata, "qParams": _view(state, ids), "nodes": nodes, "links": links}


def _beside(edge: Mapping[str, Any]) -> dict[str, Any]:
    """What our file says of an edge beside its weight: heads, factors, influence, spread."""
    found = {name: v for name, v in edge.items() if name not in ("source", "target", "weight")}
    return {OWN: found} if found else {}


def _view(state: SavedState, ids: Mapping[Node, str]) -> dict[str, Any]:
    """What is pinned and grouped; only pinned nodes are in groups there."""
    grouped = [node for members in state.groups.values() for node in members]
    pinned = dict.fromkeys(ids[node] for node in (*state.pinned, *grouped))
    groups = [
        [_inert(name), *(ids[node] for node in members)] for name, members in state.groups.items()
    ]
    return {
        "pinnedIds": list(pinned),
        "supernodes": groups,
        "linkType": "both",
        "clickedId": "",
        "sg_pos": "",
    }


def cumulative_influence(graph: nx.DiGraph) -> dict[Node, float]:
    """Of each node the share of all influence that it and the more influential nodes have.

    The influence is the graph's own, that of a replacement graph, else what its edges come to.
    Empty for a graph that runs in circles, as one that was merged by hand may.
    """
    summed = _influence(graph)
    total, reached, shares = sum(summed.values()) or 1.0, 0.0, {}
    for node in sorted(summed, key=lambda n: (-summed[n], str(n))):
        reached += summed[node] / total
        shares[node] = min(round(reached, 9), 1.0)
    return shares


def _influence(graph: nx.DiGraph) -> dict[Node, float]:
    outputs = [node for node in graph if node.kind == "logit"]
    inner = [node for node in graph if node.kind != "logit"]
    if all(graph.nodes[node].get("influence") is not None for node in inner):
        return {node: float(graph.nodes[node]["influence"]) for node in inner}
    if not outputs or not nx.is_directed_acyclic_graph(graph):
        return {}
    weights = {(u, v): weight for u, v, weight in graph.edges(data="weight")}
    each = [influence(weights, output) for output in outputs]
    return {node: sum(found.get(node, 0.0) for found in each) for node in inner}


def _tokens(graph: nx.DiGraph) -> list[str]:
    """The tokens of the graph's columns, at least two: circuit-tracer drops all nodes over one."""
    tokens = [_inert(str(token)) for token in graph.graph.get("columns") or ()]
    reached = max((node.position for node in graph if node.position is not None), default=-1)
    tokens += [str(position) for position in range(len(tokens), reached + 1)]
    tokens = tokens or ["all positions, summed"]
    return tokens if len(tokens) > 1 else [*tokens, "output"]


def _label(graph: nx.DiGraph, node: Node, given: str | None) -> str:
    """A node's label; viewers read an output's token from its quotes, and its `(p=...)`."""
    said = _inert(given or caption(node, graph.nodes[node]))
    if node.kind == "logit":
        short = said if len(said) <= OUTPUT else f"{said[: OUTPUT - 1]}…"
        return f'Output "{short.replace("(p=", "(p =")}" (p={_weight(graph, node):.3f})'
    if node.kind == "token":
        return said
    name = f"{node.site}/{node.feature}"
    return name if said in (name, "error", f"#{node.feature}") else f"{name}: {said}"


def _weight(graph: nx.DiGraph, node: Node) -> float:
    """An output's probability; its share among the graph's outputs where the graph has none."""
    known = graph.nodes[node].get("probability")
    return 1 / sum(n.kind == "logit" for n in graph) if known is None else float(known)


def _metadata(graph: nx.DiGraph, viewer: str, tokens: list[str], slug: str) -> dict[str, Any]:
    meta = graph.graph
    model = meta.get("model")
    name = str(model.get("name") if isinstance(model, Mapping) else model or "model")
    scan = LOCAL_FEATURES if viewer == CIRCUIT_TRACER else _neuronpedia_name(name)
    return {
        "slug": slug,
        "scan": scan,
        "transcoder_list": [],
        "prompt_tokens": tokens,
        "prompt": "".join(tokens),
        "info": {
            "description": _described(graph, name),
            "generator": {"name": "qwen-circuits", "version": version("qwen-circuits")},
        },
        OWN: dict(meta),
    }


def _described(graph: nx.DiGraph, model: str) -> str:
    """What a reader of the file should know, in sentences."""
    meta = graph.graph
    known = all("probability" in graph.nodes[node] for node in graph if node.kind == "logit")
    share = " The p of an output is its share among the graph's outputs, not a probability."
    of_outputs = "" if known else share
    replaced = meta.get("method") == "replacement"
    kind = (
        "An attribution graph of the replacement model" if replaced else "A sparse feature circuit"
    )
    n = meta.get("n_prompts") or 1
    prompt = (
        "one prompt"
        if n == 1
        else (f"{n} prompts: at each position the token of the first, with … where others differ")
    )
    return _inert(
        f"{kind} of {model} for the {meta.get('metric', 'metric')} of {prompt}. "
        f"Edges are in units of the {meta.get('edge_units', 'metric')}, positive where the source "
        f"supports. Labels say site and feature.{of_outputs}"
    )


def _inert(text: str) -> str:
    return readable(text).translate(INERT)


def _neuronpedia_name(model: str) -> str:
    """What Neuronpedia calls a model: `qwen3-0.6b` is Qwen/Qwen3-0.6B, `-it` an instructed one."""
    plain = _plain_name(model.rstrip("/").rsplit("/", 1)[-1]).lower()
    for theirs, ours in (("-it", "-instruct"), ("-pt", "-base")):
        plain = plain.removesuffix(ours) + theirs * plain.endswith(ours)
    return plain or "model"


def _plain_name(name: str) -> str:
    """A name of what Neuronpedia takes in one."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-")

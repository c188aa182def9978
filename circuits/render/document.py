"""The machinery of a page: one HTML file that opens from disk and asks the network for nothing.

pyvis holds the network; its template is replaced by ours, with autoescape on. Everything that
came from a model or a user reaches the browser as JSON and is set as text, never as markup.
"""

import base64
import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

from circuits.graph import Node, ordered
from circuits.render.layout import Layout, layout
from circuits.render.words import caption

HERE = Path(__file__).parent
SCRIPTS = ("dom", "state", "canvas", "labels", "card", "charts", "check", "table", "main")
MAX_NODES, MAX_EDGES = 2_000, 12_000
SMALLEST, LARGEST, OUTPUT = 4.5, 14.0, 9.0  # node radius, px
NOTE = "size: |effect|, width: |weight|, edges run upwards"
SHAPES = {"feature": "dot", "neuron": "dot", "error": "diamond", "token": "square"}

Describe = Callable[[Node], Mapping[str, Any]]
DescribeEdge = Callable[[Node, Node], Mapping[str, Any]]


def document(
    graph: nx.DiGraph,
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    payload: Mapping[str, Any],
    describe_node: Describe,
    describe_edge: DescribeEdge,
    cards: Mapping[str, Any],
) -> str:
    """The whole page as text.

    `describe_node` gives a node's `group` (a legend entry) and what its card lists;
    `describe_edge` an edge's `group` and signed `support`. `payload` holds the legend, the
    number fields and whatever the panels show besides.

    Raises `ValueError` when a number in the payload is not finite.
    """
    drawn = strongest(graph)
    places = layout(drawn)
    network = _network(drawn, places, describe_node, describe_edge)
    shown = {
        "note": NOTE + payload.get("note", ""),
        "bands": [asdict(band) for band in places.bands],
        "columns": [asdict(column) for column in places.columns],
        "size": {"width": places.width, "height": places.height},
        "total": {"nodes": len(graph), "edges": graph.number_of_edges()},
    }
    environment = _environment()
    environment.globals.update(
        title=title,
        facts=facts,
        payload={**payload, **shown},
        cards=compress(_cards_drawn(drawn, cards)),
        assets=_assets(),
    )
    network.templateEnv = environment
    return network.generate_html()


def strongest(graph: nx.DiGraph) -> nx.DiGraph:
    """The part of the graph that a page draws: outputs, then the strongest nodes and edges."""
    ranked = sorted(ordered(graph), key=lambda node: node.kind != "logit")[:MAX_NODES]
    kept = nx.DiGraph(**graph.graph)
    kept.add_nodes_from((node, graph.nodes[node]) for node in ranked)
    inside = [edge for edge in graph.edges(data=True) if edge[0] in kept and edge[1] in kept]
    inside.sort(key=lambda edge: (-abs(edge[2]["weight"]), str(edge[0]), str(edge[1])))
    kept.add_edges_from(inside[:MAX_EDGES])
    return kept


def compress(record: Any) -> str:
    """JSON, gzipped without a time stamp, in base64."""
    packed = gzip.compress(to_json(record).encode(), compresslevel=9, mtime=0)
    return base64.b64encode(packed).decode("ascii")


def to_json(record: Any) -> str:
    """Strict, compact ASCII JSON; NumPy and torch scalars and arrays count as plain values."""
    return json.dumps(record, allow_nan=False, separators=(",", ":"), default=_plain)


def embed(record: Any) -> Markup:
    """JSON that may stand inside a `<script>` element: no character there can end it."""
    text = record if isinstance(record, str) else to_json(record)
    return Markup(text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"))


def _network(
    graph: nx.DiGraph, places: Layout, describe_node: Describe, describe_edge: DescribeEdge
) -> Any:
    """The pyvis network: nodes numbered strongest first, places fixed, plain types only."""
    from pyvis.network import Network  # not at the top: it imports IPython, half a second

    network = Network(directed=True)
    number = {node: index for index, node in enumerate(ordered(graph))}
    largest = max((abs(graph.nodes[n]["effect"] or 0.0) for n in number), default=0.0) or 1.0
    for node, index in number.items():
        data, place = graph.nodes[node], places.places[node]
        share = abs(data["effect"] or 0.0) / largest
        network.add_node(
            index,
            label=caption(node, data) or " ",
            shape=SHAPES.get(data["kind"], "square"),
            size=OUTPUT if node.kind == "logit" else round(_radius(float(share)), 2),
            x=round(place.x, 1),
            y=round(place.y, 1),
            key=str(node),
            site=node.site,
            kind=data["kind"],
            token=data.get("token"),
            **describe_node(node),
        )
    for source, target in graph.edges:
        network.add_edge(number[source], number[target], arrows="", **describe_edge(source, target))
    network.options = dict(OPTIONS)
    return network


OPTIONS: dict[str, Any] = {
    "physics": {"enabled": False},
    "layout": {"improvedLayout": False},
    "nodes": {
        "fixed": True,
        "borderWidth": 1.5,
        "chosen": False,
    },
    "edges": {
        "chosen": False,
        "arrows": {"to": {"enabled": False}},
        "smooth": {"type": "cubicBezier", "forceDirection": "vertical", "roundness": 0.45},
    },
    "interaction": {
        "hover": True,
        "dragNodes": False,
        "selectConnectedEdges": False,
        "hoverConnectedEdges": False,
        "tooltipDelay": 120,
        "zoomSpeed": 0.6,
    },
}


def _radius(share: float) -> float:
    return SMALLEST + (LARGEST - SMALLEST) * share**0.5


def _cards_drawn(graph: nx.DiGraph, cards: Mapping[str, Any]) -> dict[str, Any]:
    names = {f"{node.site}/{node.feature}" for node in graph if node.kind == "feature"}
    return {name: cards[name] for name in sorted(names & cards.keys())}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(
        f"a page holds numbers, text, lists and dicts, got {type(value).__name__}: {value!r}"
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["embed"] = embed
    return environment


@cache
def _assets() -> dict[str, Markup]:
    """Style sheets and scripts to inline; vis-network's are the ones that pyvis ships."""
    import pyvis

    vis = max(Path(pyvis.__file__).parent.glob("lib/vis-9.*"))
    own = "\n".join((HERE / f"page_{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    # A source map comment makes developer tools ask for a file that is not there.
    library = (vis / "vis-network.min.js").read_text(encoding="utf-8").split("//# sourceMap")[0]
    texts = {
        "vis_css": (vis / "vis-network.css").read_text(encoding="utf-8"),
        "vis_js": library,
        "css": (HERE / "page.css").read_text(encoding="utf-8"),
        "js": f'(() => {{\n"use strict";\n{own}\n}})();',
    }
    return {name: _inlined(name, text) for name, text in texts.items()}


def _inlined(name: str, text: str) -> Markup:
    end = "</style" if name.endswith("css") else "</script"
    assert end not in text.lower(), f"{name} holds {end!r} and would end its own element"
    return Markup(text)

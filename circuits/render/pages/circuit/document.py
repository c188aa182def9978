"""The machinery of a page: one HTML file that opens from disk and asks the network for nothing.

pyvis holds the network; its template is replaced by ours, with autoescape on. Everything that
came from a model or a user reaches the browser as JSON and is set as text, never as markup.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
from markupsafe import Markup

from circuits.graph import Node, ordered
from circuits.render.layout import Layout, layout
from circuits.render.pages.assets import compress, inlined, script, style, templates, to_json
from circuits.render.suggestions import suggested_groups
from circuits.render.words import caption

MODULES = ("store", "scene", "layer", "places", "tokens", "find", "paths", "scores")
PARTS = (
    *("state", "keep", "network", "look", "view", "axes", "lines", "labels", "pointer"),
    *("drawing", "links", "heads", "edge", "card", "pins", "suggestions", "charts", "check"),
    *("ablations", "table", "menus", "tabs", "search", "keys", "main"),
)
SCRIPTS = (
    *("dom.mjs", "numbers.mjs"),
    *(f"circuit/{name}.mjs" for name in MODULES),
    *("bars.mjs", "histogram.mjs"),
    *(f"circuit/{name}.mjs" for name in PARTS),
)
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
    attention: Mapping[str, Any] | None = None,
    page: str = "circuit/circuit_page.html",
    sheets: Sequence[str] = (),
    **context: Any,
) -> str:
    """The whole page as text.

    `describe_node` gives a node's `group` (a legend entry) and what its card lists;
    `describe_edge` an edge's `group` and signed `support`. `payload` holds the legend, the
    number fields and whatever the panels show besides; `attention` the paths of edges by their
    ends, and what heads do. `page` is the template that the graph stands in, with style `sheets` of
    its own and whatever else it is given.

    Raises `ValueError` when a number in the payload is not finite.
    """
    drawn = strongest(graph)
    places = layout(drawn)
    network = _network(drawn, places, describe_node, describe_edge)
    if page != "circuit/circuit_page.html":
        # In a longer page the wheel scrolls.
        network.options["interaction"] = network.options["interaction"] | {"zoomView": False}
    shown = {
        "note": NOTE + payload.get("note", ""),
        "bands": [asdict(band) for band in places.bands],
        "columns": [asdict(column) for column in places.columns],
        "size": {"width": places.width, "height": places.height},
        "graph": fingerprint(graph),
        "suggested": suggested_groups(drawn, cards),
        "total": {"nodes": len(graph), "edges": graph.number_of_edges()},
    }
    library, environment = _library(), templates()
    environment.globals.update(
        title=title,
        facts=facts,
        payload={**payload, **shown},
        cards=compress(_cards_drawn(drawn, cards)),
        attention=compress(attention) if attention else None,
        page=page,
        styles=[library["css"], style("page.css", "heading.css", *sheets)],
        library=library["js"],
        script=script(SCRIPTS),
        **context,
    )
    network.templateEnv = environment
    return network.generate_html()


def fingerprint(graph: nx.DiGraph) -> str:
    """Short name of a graph by its nodes and edges: under it a browser keeps what was pinned."""
    rows = sorted(map(str, graph)), sorted((str(u), str(v)) for u, v in graph.edges)
    return hashlib.sha256(to_json(rows).encode()).hexdigest()[:16]


def groups_on_page(graph: nx.DiGraph, cards: Mapping[str, Any]) -> list[list[Node]]:
    """The groups of features that the page of a graph with these cards suggests."""
    found = suggested_groups(strongest(graph), cards)
    return [[Node.parse(key) for key in group["members"]] for group in found]


def strongest(graph: nx.DiGraph) -> nx.DiGraph:
    """The part of the graph that a page draws: outputs, then the strongest nodes and edges."""
    ranked = sorted(ordered(graph), key=lambda node: node.kind != "logit")[:MAX_NODES]
    kept = nx.DiGraph(**graph.graph)
    kept.add_nodes_from((node, graph.nodes[node]) for node in ranked)
    inside = [edge for edge in graph.edges(data=True) if edge[0] in kept and edge[1] in kept]
    inside.sort(key=lambda edge: (-abs(edge[2]["weight"]), str(edge[0]), str(edge[1])))
    kept.add_edges_from(inside[:MAX_EDGES])
    return kept


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


@cache
def _library() -> dict[str, Markup]:
    """The style sheet and script of vis-network that pyvis ships, to inline."""
    import pyvis

    vis = max(Path(pyvis.__file__).parent.glob("lib/vis-9.*"))
    # A source map comment makes developer tools ask for a file that is not there.
    code = (vis / "vis-network.min.js").read_text(encoding="utf-8").split("//# sourceMap")[0]
    sheet = (vis / "vis-network.css").read_text(encoding="utf-8")
    return {"css": inlined(sheet, end="</style"), "js": inlined(code, end="</script")}

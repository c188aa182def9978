"""What a person grouped and named, put into a graph: a group is one node, its edges summed."""

from collections.abc import Mapping

import networkx as nx

from circuits.edits.graph import labelled, merged
from circuits.graph import Node
from circuits.render.layout import Layout, layout
from circuits.saved_state import SavedState
from hooked_qwen.nodes import GROUP


def with_state(graph: nx.DiGraph, state: SavedState) -> nx.DiGraph:
    """`graph` with the labels and groups of `state`.

    A group has the summed effect of its members, and stands where the strongest of them would.
    """
    found = graph
    for node, text in state.labels.items():
        found = labelled(found, node, text)
    for name, members in state.groups.items():
        strongest = max(members, key=lambda n: (abs(graph.nodes[n]["effect"] or 0.0), str(n)))
        found = merged(found, members, name)
        found.nodes[Node(GROUP, name)]["stands_at"] = str(strongest)
    return found


def places_of(circuit: nx.DiGraph) -> Layout:
    """The layout of a graph that may have groups, each at the place of one of its members."""
    at: dict[Node, Node] = {}
    for node, data in circuit.nodes(data=True):
        members = data.get("members") or ()
        if node.kind == GROUP and members:
            at[node] = Node.parse(str(data.get("stands_at") or members[0]))
    places = layout(nx.relabel_nodes(circuit, at)) if at else layout(circuit)
    if not at:
        return places
    back: Mapping[Node, Node] = {member: group for group, member in at.items()}
    return Layout(
        places={back.get(node, node): place for node, place in places.places.items()},
        bands=places.bands,
        columns=places.columns,
        width=places.width,
        height=places.height,
    )

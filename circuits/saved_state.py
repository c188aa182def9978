"""What a person did to a picture of a graph, saved as JSON: the page writes it, a figure reads it.

    {"schema": "circuits-state/1",
     "pinned": [KEY, ...],
     "groups": {NAME: [KEY, ...]},      one box each, under a name
     "collapsed": [NAME, ...],          groups that the page shows as one
     "labels": {KEY: TEXT},
     "notes": {KEY: TEXT},
     "places": {KEY: [x, y]}}           where nodes were dragged to in the view of pinned ones

A KEY is a node's id in `graph.json`, such as `mlp_out.3/812@5`; under `places` it is `group/NAME`
for a group's box. Places are in units of that view, right and down. Parts that are missing are
empty.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.graph import Node
from hooked_qwen.notices import counted, notify

SCHEMA = "circuits-state/1"
OF_GROUP = "group/"
"How the key of a group's box begins."
SHOWN = 3
"Unknown names that a notice lists."


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """Pinned nodes, named groups of nodes, and what nodes are called."""

    pinned: tuple[Node, ...] = ()
    groups: Mapping[str, tuple[Node, ...]] = field(default_factory=dict)
    collapsed: tuple[str, ...] = ()
    labels: Mapping[Node, str] = field(default_factory=dict)
    notes: Mapping[Node, str] = field(default_factory=dict)
    places: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    "by a node's id, or `group/NAME`"


def read_state(path: Path, graph: nx.DiGraph) -> SavedState:
    """The state in a file, of the nodes that `graph` has; what it lacks is told once.

    Raises `ValueError` with one line for a file that is no such state, and for a node that is in
    two groups.
    """
    try:
        return _within(_state(json.loads(path.read_text(encoding="utf-8"))), graph)
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read a saved state from {path}: {error}") from None


def as_json(state: SavedState) -> dict[str, Any]:
    """The state as plain JSON values, as `read_state` takes it."""
    return {
        "schema": SCHEMA,
        "pinned": [str(node) for node in state.pinned],
        "groups": {name: [str(n) for n in nodes] for name, nodes in state.groups.items()},
        "collapsed": list(state.collapsed),
        "labels": {str(node): text for node, text in state.labels.items()},
        "notes": {str(node): text for node, text in state.notes.items()},
        **({"places": {key: list(at) for key, at in state.places.items()}} if state.places else {}),
    }


def _state(record: Any) -> SavedState:
    if not isinstance(record, Mapping) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, Mapping) else type(record).__name__
        raise ValueError(
            f"its schema is {found!r}, expected {SCHEMA!r}: save the state from a page of this "
            "version"
        )
    groups = {name: _nodes(ids, f"group {name!r}") for name, ids in _part(record, "groups").items()}
    _once(groups)
    return SavedState(
        pinned=_nodes(record.get("pinned", []), "'pinned'"),
        groups=groups,
        collapsed=tuple(_texts(record.get("collapsed", []), "'collapsed'")),
        labels=_by_node(record, "labels"),
        notes=_by_node(record, "notes"),
        places={key: _place(key, at) for key, at in _part(record, "places").items()},
    )


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name, {})
    if not isinstance(part, Mapping):
        raise ValueError(f"{name!r} is {part!r}, expected an object")
    return part


def _by_node(record: Mapping[str, Any], name: str) -> dict[Node, str]:
    part = _part(record, name)
    _texts(list(part.values()), repr(name))
    return {Node.parse(key): text for key, text in part.items()}


def _place(key: str, at: Any) -> tuple[float, float]:
    if not key.startswith(OF_GROUP):
        Node.parse(key)
    is_pair = isinstance(at, list) and len(at) == 2
    if not (is_pair and all(type(v) in (int, float) and math.isfinite(v) for v in at)):
        raise ValueError(f"the place of {key!r} is {at!r}, expected two numbers, [x, y]")
    return float(at[0]), float(at[1])


def _nodes(ids: Any, where: str) -> tuple[Node, ...]:
    return tuple(dict.fromkeys(map(Node.parse, _texts(ids, where))))


def _texts(values: Any, where: str) -> list[str]:
    if not isinstance(values, list):
        raise ValueError(f"{where} is {values!r}, expected a list of texts")
    for value in values:
        if not isinstance(value, str):
            raise ValueError(f"{where} holds {value!r}, expected text")
    return values


def _once(groups: Mapping[str, Iterable[Node]]) -> None:
    seen: dict[Node, str] = {}
    for name, nodes in groups.items():
        for node in nodes:
            if (other := seen.setdefault(node, name)) != name:
                raise ValueError(
                    f"the node {node} is in the groups {other!r} and {name!r}, expected one at most"
                )


def _within(state: SavedState, graph: nx.DiGraph) -> SavedState:
    """Without the nodes that the graph lacks, groups that have none left, and unknown names."""
    nodes = [*state.pinned, *state.labels, *state.notes]
    nodes += [node for members in state.groups.values() for node in members]
    nodes += [Node.parse(key) for key in state.places if not key.startswith(OF_GROUP)]
    lacking = [str(node) for node in dict.fromkeys(nodes) if node not in graph]
    lacking += [name for name in state.collapsed if name not in state.groups]
    if lacking:
        more = ", ..." if len(lacking) > SHOWN else ""
        notify(
            f"the graph lacks {counted(len(lacking), 'name')} of the saved state, left out: "
            f"{', '.join(lacking[:SHOWN])}{more}"
        )
    known = set(map(str, graph))
    kept = {
        name: members
        for name, nodes in state.groups.items()
        if (members := tuple(node for node in nodes if node in graph))
    }
    return SavedState(
        pinned=tuple(node for node in state.pinned if node in graph),
        groups=kept,
        collapsed=tuple(name for name in state.collapsed if name in kept),
        labels={node: text for node, text in state.labels.items() if node in graph},
        notes={node: text for node, text in state.notes.items() if node in graph},
        places={
            key: at
            for key, at in state.places.items()
            if (key[len(OF_GROUP) :] in kept if key.startswith(OF_GROUP) else key in known)
        },
    )

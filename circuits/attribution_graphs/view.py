"""What a person pinned, grouped and named in an attribution graph's file."""

import json
from pathlib import Path
from typing import Any

from circuits.attribution_graphs.files import GraphRecord, record_of
from circuits.attribution_graphs.names import named
from circuits.graph import Node
from circuits.render.export.viewers import OWN
from circuits.saved_state import SavedState


def read_view(path: Path) -> SavedState:
    """What is pinned and grouped in the file of an attribution graph that can be read."""
    record = record_of(path)
    called, view = _called(record), record.get("qParams") or {}
    pinned = _listed(view.get("pinnedIds"), lambda text: text.split(","))
    groups = _listed(view.get("supernodes"), json.loads)
    taken: set[Node] = set()
    found: dict[str, tuple[Node, ...]] = {}
    for name, *members in groups:
        nodes = [called[str(one)] for one in members if str(one) in called]
        found[str(name)] = tuple(n for n in dict.fromkeys(nodes) if n not in taken)
        taken.update(nodes)
    kept = {name: nodes for name, nodes in found.items() if nodes}
    return SavedState(
        pinned=tuple(called[str(one)] for one in pinned if str(one) in called), groups=kept
    )


def _listed(value: Any, split: Any) -> Any:
    """A list, or the text that a page's address has in its place."""
    if isinstance(value, str):
        return split(value) if value.strip() else ()
    return value or ()


def _called(record: GraphRecord) -> dict[str, Node]:
    """Nodes by the ids of the file."""
    records = record["nodes"]
    if isinstance(record["metadata"].get(OWN), dict):
        names = [Node.parse(found[OWN]["id"]) for found in records]
    else:
        names = named(records, record["metadata"])
    known = [(str(r["node_id"]), n) for r, n in zip(records, names, strict=True) if n is not None]
    # Where an error has the name of a feature, the feature is what people pin.
    known.sort(key=lambda pair: pair[1].kind != "error")
    return dict(known)

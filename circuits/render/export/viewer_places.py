"""Where the nodes of a graph stand in a viewer, and what they are called there."""

import re
import zlib
from dataclasses import dataclass
from typing import Any

import networkx as nx

from circuits.graph import Node
from circuits.render.layout import depth

FEATURE, ERROR = "cross layer transcoder", "mlp reconstruction error"
"What viewers call the two; they show the examples of no other kind of node."
PER_SITE = 10**7
"Numbers of features of a site; with `site * PER_SITE` before them no two are the same."


@dataclass(frozen=True)
class Places:
    """Where the nodes of a graph stand in a viewer, and what they are called there."""

    sites: list[str]
    "all that the graph may have nodes at: a feature has one number in all graphs of a suite"
    first: int
    "what the first layer is called"
    last: int
    "the last column"
    layers: int

    @classmethod
    def of(cls, graph: nx.DiGraph, columns: int) -> "Places":
        named = {node.site for node in graph if node.kind != "logit"}
        layers = [_layer(site) or 0 for site in named]
        # Neuronpedia finds no layer where none but outputs lie above 0.
        first = 0 if max(layers, default=0) else 1
        known = sorted(named | set(graph.graph.get("dictionaries") or {}), key=depth)
        return cls(known, first, columns - 1, max(layers, default=0) + first)

    def number(self, node: Node) -> int:
        """The number of a feature: viewers know of one dictionary for each layer."""
        index = node.feature if isinstance(node.feature, int) else zlib.crc32(str(node).encode())
        return self.sites.index(node.site) * PER_SITE + index % PER_SITE

    def fields(self, node: Node) -> dict[str, Any]:
        at = self.last if node.position is None and node.kind == "logit" else node.position or 0
        if node.kind == "logit":
            layer, number = str(self.layers + 1), zlib.crc32(str(node).encode())
            return _fields(f"{layer}_{number}_{at}", layer, at, number, "logit")
        if node.kind == "token":
            return _fields(f"E_{at}_{at}", "E", at, at, "embedding")
        layer = str((_layer(node.site) or 0) + self.first)
        if node.kind == "error":
            # circuit-tracer's own ids of errors are those of features of layer 0.
            number = -1 - self.sites.index(node.site)
            return _fields(f"err_{node.site}_{at}", layer, at, number, ERROR)
        number = self.number(node)
        return _fields(f"{layer}_{number}_{at}", layer, at, number, FEATURE)


def _fields(node_id: str, layer: str, at: int, number: int, kind: str) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "jsNodeId": node_id,
        "layer": layer,
        "ctx_idx": at,
        "feature": number,
        "feature_type": kind,
    }


def _layer(site: str) -> int | None:
    """The layer that a site or a dictionary is named for, of several the first."""
    found = re.search(r"\.(\d+)", site)
    return int(found[1]) if found else None

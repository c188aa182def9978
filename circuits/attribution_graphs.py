"""Attribution graphs of circuit-tracer and Neuronpedia, read back as graphs of ours.

    graph = read_attribution_graph("austin.json")

What we exported is read as it was. Of other files the nodes are named by what their type says:

    cross layer transcoder    clt.3/812@5; mlp_out.3/812@5 of a layer's transcoders
    lorsa                     attn_out.3/812@5
    ... error                 mlp_out.3/error@5, attn_out.3/error@5
    embedding, logit          token@5, logit/ Austin

Edges stay as they are: what a node adds to its target's pre-activation, or to a logit. The file has
no effects. Where it has activations a(v), they are sums over its paths to the likeliest output t,

    total(u) = w(u -> t) + sum over v of w(u -> v) / a(v) * total(v)        effect(u) = -total(u)

and else the `influence` that a node has by itself, without a sign.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import networkx as nx

from circuits.discovery.prune import influence
from circuits.graph import Node, rounded
from circuits.render.viewers import OWN
from circuits.render.words import edge_support
from circuits.saved_state import SavedState
from hooked_qwen.notices import counted

Record = Mapping[str, Any]
ERRORS = (KeyError, TypeError, AttributeError, ValueError)
OUTPUT = re.compile(r"[\"'](.*)[\"']\s*k?\(p=([\d.eE+-]+)\)", re.DOTALL)
CLT = re.compile(r"(?<![a-z])clt(?![a-z])|cross[-_ ]?layer")


def read_attribution_graph(path: Path) -> nx.DiGraph:
    """The graph in a file of circuit-tracer's, Neuronpedia's or our own export.

    `meta.notices` says what the file does not tell. Raises `ValueError` with one line for a file of
    another form.
    """
    record = _record(path)
    try:
        if isinstance(record["metadata"].get(OWN), Mapping):
            return _own(record)
        return _foreign(record)
    except ERRORS as error:
        told = f"it lacks {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"cannot read the attribution graph {path}: {told}") from None


def read_view(path: Path) -> SavedState:
    """What is pinned, grouped and named in the file of an attribution graph that can be read."""
    record = _record(path)
    metadata, view = record["metadata"], record.get("qParams") or {}
    if isinstance(metadata.get(OWN), Mapping):
        named = [Node.parse(found[OWN]["id"]) for found in record["nodes"]]
    else:
        named = _named(record["nodes"], metadata)
    # Where an error has the name of a feature, the feature is what people pin.
    both = sorted(
        zip(record["nodes"], named, strict=True), key=lambda pair: pair[1].kind != "error"
    )
    called = {str(found["node_id"]): node for found, node in both}
    pinned, groups = view.get("pinnedIds") or (), view.get("supernodes") or ()
    if isinstance(pinned, str):  # as the page's address has them
        pinned = pinned.split(",")
    if isinstance(groups, str):
        groups = json.loads(groups)
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


def _record(path: Path) -> Record:
    """The JSON of an attribution graph; raises `ValueError` for another file."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not JSON ({error}): expected an attribution graph") from None
    lacking = [name for name in ("metadata", "nodes", "links") if not _has(record, name)]
    if lacking:
        raise ValueError(
            f"{path} is no attribution graph: it lacks {', '.join(lacking)}; expected the JSON "
            "that circuit-tracer or Neuronpedia write, with metadata, nodes and links"
        )
    return record


def _has(record: Any, name: str) -> bool:
    kind = Mapping if name == "metadata" else list
    return isinstance(record, Mapping) and isinstance(record.get(name), kind)


def _own(record: Record) -> nx.DiGraph:
    """A graph that we exported, with every attribute that it had."""
    graph, nodes = nx.DiGraph(**record["metadata"][OWN]), {}
    for found in record["nodes"]:
        known = dict(found[OWN])
        nodes[found["node_id"]] = node = Node.parse(known.pop("id"))
        for name in ("site", "feature", "position"):
            known.pop(name)
        graph.add_node(node, **known)
    for link in record["links"]:
        source, target = (nodes[link[end]] for end in ("source", "target"))
        weight = edge_support(_finite(link["weight"]), graph.graph)
        graph.add_edge(source, target, weight=weight)
    return graph


def _foreign(record: Record) -> nx.DiGraph:
    metadata = record["metadata"]
    tokens = [str(token) for token in metadata["prompt_tokens"]]
    named = _named(record["nodes"], metadata)
    graph = nx.DiGraph()
    for found, node in zip(record["nodes"], named, strict=True):
        graph.add_node(node, **_attributes(found, node, tokens))
    left_out = _add_links(graph, record, named)
    estimator = _estimate(graph, record["nodes"], named)
    outputs = [node for node in graph if node.kind == "logit"]
    graph.graph |= {
        "method": "imported",
        "metric": "logit" if outputs else "influence",
        "estimator": estimator,
        "positions": "keep",
        "edge_units": "pre-activation of the target",
        "columns": tokens,
        "n_prompts": 1,
        "prompt_lengths": [len(tokens), len(tokens)],
        "model": {"name": str(metadata.get("scan", "unknown"))},
        "dictionaries": {},
        "title": str(metadata.get("slug") or "Imported graph"),
        "notices": [_unknown(estimator, left_out, metadata)],
    }
    return graph


def _unknown(estimator: str, left_out: int, metadata: Record) -> str:
    """What the file does not tell, in one line."""
    edges = (
        f"; {counted(left_out, 'edge')} left out, whose source may be a feature or an error: the "
        "file calls both the same"
        if left_out
        else ""
    )
    return (
        f"imported from the attribution graph of {metadata.get('scan', 'an unnamed model')!r}: its "
        "weights and dictionaries are not in the file, so it cannot be verified or ablated; "
        f"effects are {estimator}{edges}"
    )


def _named(found: Iterable[Record], metadata: Record) -> list[Node]:
    """A key for each node; raises `ValueError` where two have the same."""
    site = "clt" if _is_cross_layer(metadata) else "mlp_out"
    named: dict[Node, None] = {}
    for record in found:
        node = _name(record, site, metadata.get("schema_version") == 1)
        while node.kind == "logit" and node in named:
            node = node._replace(feature=f"{node.feature}'")
        if node in named:
            raise ValueError(f"two of its nodes are {node}, one of them {record['node_id']!r}")
        named[node] = None
    return list(named)


def _is_cross_layer(metadata: Record) -> bool:
    """Whether features write several layers: the type of a node says so of all of them."""
    details, info = metadata.get("feature_details") or {}, metadata.get("info") or {}
    said = " ".join(
        map(str, (metadata.get("scan"), *details.values(), *(info.get("source_urls") or ())))
    ).lower()
    if CLT.search(said):
        return True
    return not metadata.get("transcoder_list") and "transcoder" not in said


def _name(record: Record, site: str, paired: bool) -> Node:
    kind, at = str(record["feature_type"]), int(record["ctx_idx"])
    if kind == "logit":
        return Node("logit", _output(record)[0])
    if kind == "embedding":
        return Node("embed", "token", at)
    layer = str(record["layer"])
    if not layer.isdecimal():
        raise ValueError(
            f"the node {record['node_id']!r}, of type {kind!r}, is in layer {layer!r}: expected a "
            "number"
        )
    attention = "lorsa" in kind or "attention" in kind
    if "error" in kind:
        return Node(f"{'attn_out' if attention else 'mlp_out'}.{layer}", "error", at)
    return Node(f"{'attn_out' if attention else site}.{layer}", _index(record, layer, paired), at)


def _index(record: Record, layer: str, paired: bool) -> int:
    """A feature's number in its dictionary: by the node's id, else by the `feature` field.

    `paired` fields are (s + i) (s + i + 1) / 2 + i of layer and number i, s the layer.
    """
    found = re.fullmatch(rf"{layer}_(\d+)_\d+", str(record["node_id"]))
    if found:
        return int(found[1])
    number = int(record["feature"])
    if not paired:
        return number
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    return number - diagonal * (diagonal + 1) // 2


def _output(record: Record) -> tuple[str, float]:
    """An output's token and probability."""
    found = OUTPUT.search(str(record.get("clerp") or ""))
    token = found[1] if found else str(record.get("clerp") or record["feature"])
    return token, float(found[2] if found else record.get("token_prob") or 0.0)


def _attributes(record: Record, node: Node, tokens: list[str]) -> dict[str, Any]:
    if node.position is not None and not 0 <= node.position < len(tokens):
        raise ValueError(f"{node} is at token {node.position}, and its prompt has {len(tokens)}")
    token = None if node.position is None else tokens[node.position]
    activation = record.get("activation")
    label = token if node.kind == "token" else str(record.get("clerp") or "")
    return {
        "kind": node.kind,
        "token": token,
        "activation": None if activation is None else _finite(activation),
        "effect": None,
        "exact": None,
        "label": "" if node.kind == "logit" else label,
    }


def _add_links(graph: nx.DiGraph, record: Record, named: list[Node]) -> int:
    """Add the edges; the number of those whose source the file leaves open."""
    called: dict[str, list[Node]] = {}
    for found, node in zip(record["nodes"], named, strict=True):
        called.setdefault(str(found["node_id"]), []).append(node)
    left_out = 0
    for link in record["links"]:
        for end in ("source", "target"):
            if str(link[end]) not in called:
                raise ValueError(f"an edge names the node {link[end]!r}, which is not in the file")
        # circuit-tracer's error of layer k and feature k of layer 0 share a name; errors have
        # no inputs, and reach only what lies above them.
        (target,) = [n for n in called[str(link["target"])] if n.kind != "error"][:1] or [None]
        if target is None:
            raise ValueError(f"an edge leads to {link['target']!r}, an error, which has no inputs")
        sources = [n for n in called[str(link["source"])] if _layer(n) < _layer(target)]
        if len(sources) > 1:
            left_out += 1
            continue
        source = (sources or called[str(link["source"])])[0]
        graph.add_edge(source, target, weight=_finite(link["weight"]))
    return left_out


def _layer(node: Node) -> float:
    ends = {"logit": math.inf, "embed": -1.0}
    return ends[node.site] if node.site in ends else float(node.site.rsplit(".", 1)[1])


def _estimate(graph: nx.DiGraph, records: list[Record], named: list[Node]) -> str:
    """Give each node an effect; says in words what it is."""
    outputs = {n: _output(r)[1] for r, n in zip(records, named, strict=True) if n.kind == "logit"}
    if not nx.is_directed_acyclic_graph(graph):
        raise ValueError("its edges run in circles")
    inner = [n for n in graph if graph.in_degree(n) and graph.out_degree(n)]
    if outputs and all(graph.nodes[n]["activation"] for n in inner):
        target = max(outputs, key=lambda n: outputs[n])
        found = {n: -value for n, value in _totals(graph, target).items()}
        said = f"sums over the paths of its edges to the logit of {str(target.feature)!r}"
    elif all(r.get("influence") is not None for r in records if r["feature_type"] != "logit"):
        found = _shares({n: r["influence"] for r, n in zip(records, named, strict=True)})
        said = "the influence in the file, without a sign"
    else:
        weights = {(u, v): weight for u, v, weight in graph.edges(data="weight")}
        each = [influence(weights, output) for output in outputs]
        found = {n: -sum(e.get(n, 0.0) for e in each) for n in graph}
        said = "influence by its edges, without a sign"
    for node, data in graph.nodes(data=True):
        data["effect"] = None if node.kind == "logit" else rounded(found[node])
    return said


def _totals(graph: nx.DiGraph, target: Node) -> dict[Node, float]:
    """What each node adds to the target by all paths, of frozen attention and norms."""
    totals = dict.fromkeys(graph, 0.0)
    for node in reversed(list(nx.topological_sort(graph))):
        for _, later, weight in graph.out_edges(node, data="weight"):
            if later == target:
                totals[node] += weight
            elif later.kind != "logit" and graph.out_degree(later):
                totals[node] += weight / graph.nodes[later]["activation"] * totals[later]
    return totals


def _shares(cumulative: Mapping[Node, Any]) -> dict[Node, float]:
    """What each node adds to the influence of those before it, as an effect that supports."""
    known = {node: _finite(value) for node, value in cumulative.items() if value is not None}
    shares, before = {}, 0.0
    for node in sorted(known, key=lambda n: (known[n], str(n))):
        shares[node] = before - known[node]
        before = known[node]
    return shares


def _finite(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"it holds the number {number}")
    return number

"""What the nodes of an attribution graph are called here, by what their type says.

    cross layer transcoder    clt.3/812@5; mlp_out.3/812@5 of a layer's transcoders
    lorsa                     attn_out.3/812@5
    ... error                 mlp_out.3/error@5, attn_out.3/error@5
    embedding, logit          token@5, logit/ Austin

A node without a number that is none of these, such as a bias, has no name.
"""

import math
import re
from collections.abc import Iterable

from circuits.attribution_graphs.files import GraphRecord, output_of
from circuits.graph import Node

CLT = re.compile(r"(?<![a-z])clt(?![a-z])|cross[-_ ]?layer")
IDS = (r"{layer}_(?:[a-z]+_)?(\d+)_\d+", r"intermediate_\d+_{layer}_(\d+)")
"Of circuit-tracer, of Neuronpedia's runs with attention features, and of EleutherAI's attribute."


def named(records: Iterable[GraphRecord], metadata: GraphRecord) -> list[Node | None]:
    """A key for each node, None for what has none; raises `ValueError` where two have the same."""
    site = "clt" if is_cross_layer(metadata) else "mlp_out"
    found: dict[Node, None] = {}
    names: list[Node | None] = []
    for record in records:
        node = _name(record, site, metadata.get("schema_version") == 1)
        names.append(node)
        if node is None:
            continue
        while node.kind == "logit" and node in found:
            node = node._replace(feature=f"{node.feature}'")
        if node in found:
            raise ValueError(f"two of its nodes are {node}, one of them {record['node_id']!r}")
        found[node] = None
        names[-1] = node
    return names


def is_cross_layer(metadata: GraphRecord) -> bool:
    """Whether features write several layers: the type of a node says so of all of them."""
    details, info = metadata.get("feature_details") or {}, metadata.get("info") or {}
    places = (metadata.get("scan"), info.get("transcoder_set"), *details.values())
    said = " ".join(map(str, (*places, *(info.get("source_urls") or ())))).lower()
    if CLT.search(said):
        return True
    return not metadata.get("transcoder_list") and "transcoder" not in said


def _name(record: GraphRecord, site: str, paired: bool) -> Node | None:
    kind, at = str(record["feature_type"]), int(record["ctx_idx"])
    if kind == "logit":
        return Node("logit", output_of(record)[0])
    if kind == "embedding":
        return Node("embed", "token", at)
    error = "error" in kind
    if not error and record["feature"] is None:
        return None
    layer = str(record["layer"])
    if not layer.isdecimal():
        raise ValueError(
            f"the node {record['node_id']!r}, of type {kind!r}, is in layer {layer!r}: expected a "
            "number"
        )
    attention = "lorsa" in kind or "attention" in kind
    if error:
        return Node(f"{'attn_out' if attention else 'mlp_out'}.{layer}", "error", at)
    return Node(f"{'attn_out' if attention else site}.{layer}", _index(record, layer, paired), at)


def _index(record: GraphRecord, layer: str, paired: bool) -> int:
    """A feature's number in its dictionary: by the node's id, else by the `feature` field.

    `paired` fields are (s + i) (s + i + 1) / 2 + i of layer and number i, s the layer.
    """
    for form in IDS:
        if found := re.fullmatch(form.format(layer=layer), str(record["node_id"])):
            return int(found[1])
    number = int(record["feature"])
    if not paired:
        return number
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    return number - diagonal * (diagonal + 1) // 2

"""A graph as circuit-tracer writes one, of a small linear network."""

import copy


def node(node_id, layer, at, kind="cross layer transcoder", **fields):
    return {
        "node_id": node_id,
        "jsNodeId": node_id,
        "feature": 0,
        "layer": layer,
        "ctx_idx": at,
        "feature_type": kind,
        "clerp": "",
        "influence": None,
        "activation": None,
        **fields,
    }


def link(source, target, weight):
    return {"source": source, "target": target, "weight": weight}


# A linear network, as circuit-tracer writes one: x = 1, a = 3 x, b = 2 a + x, the logit b/2 - a; an
# error adds to the logit, and another one has the name of feature 2 of layer 0.
SAMPLE = {
    "metadata": {
        "slug": "capital",
        "scan": "gemma-2-2b",
        "transcoder_list": [],
        "prompt_tokens": ["<bos>", " Dallas", " is"],
        "prompt": "<bos> Dallas is",
        "schema_version": 1,
    },
    "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": ""},
    "nodes": [
        node("E_26865_1", "E", 1, "embedding", feature=1),
        node("0_2_1", "0", 1, feature=5, activation=3.0, clerp="about Texas"),
        node("2_812_2", "2", 2, feature=332332, activation=7.0),
        node("0_2_1", "2", 1, "mlp reconstruction error", feature=-1),
        node("0_1_2", "1", 2, "mlp reconstruction error", feature=-1),
        node("27_22605_2", "27", 2, "logit", feature=22605, clerp='Output " Austin" (p=0.410)'),
        node("27_573_2", "27", 2, "logit", feature=573, clerp='Output " the" (p=0.120)'),
    ],
    "links": [
        link("E_26865_1", "0_2_1", 3.0),
        link("0_2_1", "2_812_2", 6.0),
        link("E_26865_1", "2_812_2", 1.0),
        link("2_812_2", "27_22605_2", 3.5),
        link("2_812_2", "27_573_2", 1.25),
        link("0_1_2", "27_22605_2", -0.25),
    ],
}


def changed(**metadata):
    record = copy.deepcopy(SAMPLE)
    record["metadata"] |= metadata
    return record

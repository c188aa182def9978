"""Made-up circuits that look like real ones: same shapes, same signs, no model."""

import random
from collections.abc import Sequence

import networkx as nx

from circuits.graph import Node

PROMPT = ["The", " keys", " to", " the", " old", " cabinet", " near", " the", " door", " of", " it"]
LABELS = [
    "plural subject nouns",
    "singular noun inside a prepositional phrase",
    "verbs of being, plural",
    "",
    "end of noun phrase",
    "复数名词",
    "prepositions",
    "agreement: third person singular",
]
KINDS = ("attn_out", "mlp_out", "resid_post")
LAYERS = 6


def circuit(
    n: int,
    *,
    positions: str = "keep",
    edges_per_node: int = 4,
    seed: int = 0,
    layers: int = LAYERS,
    prompt: Sequence[str] = PROMPT,
) -> nx.DiGraph:
    """A graph of `n` nodes over `layers` layers, both signs, with errors, tokens and an output."""
    rng = random.Random(seed)
    graph = nx.DiGraph(
        metric="logit-difference",
        estimator="integrated gradients, 10 steps",
        edge_units="logit-difference",
        positions=positions,
        columns=list(prompt) if positions == "keep" else None,
        n_prompts=64,
        clean_metric=3.21,
        patch_metric=-2.87,
        model={"name": "Qwen3-0.6B-Base"},
        title="Subject-verb agreement across a prepositional phrase",
    )
    graph.add_node(Node("logit", " are"), kind="logit", token=" are", activation=None, effect=None,
                   exact=None, label="")  # fmt: skip
    for node in _features(
        rng, n - 1, range(len(prompt)) if positions == "keep" else [None], layers
    ):
        _add(graph, rng, node)
    _connect(graph, rng, edges_per_node, layers)
    return graph


def cards(graph: nx.DiGraph, *, examples: int = 6, tokens: int = 32, seed: int = 0) -> dict:
    """A card for every feature of the graph, of the size that real ones have."""
    rng = random.Random(seed)
    words = ("".join(rng.choices("etaoinshrdlu", k=rng.randint(2, 8))) for _ in range(3000))
    vocabulary = [f" {word}" for word in words]
    return {
        f"{node.site}/{node.feature}": _card(rng, vocabulary, examples, tokens)
        for node in graph
        if node.kind == "feature"
    }


def verification(graph: nx.DiGraph, *, seed: int = 0) -> dict:
    """A verification record that fits the graph's nodes."""
    rng = random.Random(seed)
    sizes = [1, 2, 5, 10, 20, 50, 100, 200]
    points = [
        {"id": str(node), "estimate": data["effect"], "exact": data["effect"] * rng.gauss(1, 0.2)}
        for node, data in graph.nodes(data=True)
        if data["effect"] is not None
    ]
    ends = {"spearman": [0.91, 0.96], "slope": [0.99, 1.08], "sign_agreement": [0.95, 0.99]}
    site = {
        "n": 30,
        "spearman": 0.93,
        "slope": 1.04,
        "sign_agreement": 0.97,
        "zeros": 1,
        "intervals": ends,
    }
    return {
        "schema": "verification/1",
        "estimator": "integrated gradients",
        "nodes": {"n": len(points), "n_prompts": 64, "spearman": 0.941, "slope": 1.037,
                  "sign_agreement": 0.972, "intervals": ends, "points": points,
                  "by_site": {f"{kind}.{layer}": site for kind in KINDS for layer in (0, 1)}},
        "curves": {"baseline": "mean", "full": 3.21, "empty": -0.12, "sizes": sizes,
                   "rows": _rows(sizes),
                   "areas": {name: {"cpr": 0.87, "cpr_interval": [0.81, 0.92],
                                    "cmd": 0.13, "cmd_interval": [0.08, 0.19]}
                             for name in _rows(sizes)}},
        "pool": {**site, "missed_in_all": 1, "missed": [
            {"id": "mlp_out.0/31@1", "estimate": 0.02, "exact": -0.5, "rank": 730,
             "by": "estimate"}]},
        "edges": {"strongest": site, "random": site, "points": []},
        "each_adds": {"circuit": 60, "faithfulness": 0.9, "interval": [0.86, 0.95],
                      "nodes": [{"id": p["id"], "adds": 0.1 - i / 300,
                                 "interval": [0.07 - i / 300, 0.12 - i / 300]}
                                for i, p in enumerate(points[:30])]},
        "held_out": {"n_prompts": 32, "full": 3.1, "empty": -0.2, "sizes": sizes,
                     "rows": _rows(sizes)},
    }  # fmt: skip


def ablations() -> dict:
    """Two ablation results, the second with a drop below zero."""
    prompts = [
        {"clean": "The keys to the cabinet", "answer": " are", "wrong": " is",
         "before": 3.0 + i / 9, "after": 0.4 - i / 5}
        for i in range(12)
    ]  # fmt: skip
    result = {
        "schema": "ablation/1", "features": ["mlp_out.1/1001", "resid_post.2/7"], "to": "zero",
        "before": 3.21, "after": 0.42, "accuracy_before": 0.984, "accuracy_after": 0.563,
        "controls": [{"name": "random features", "after": 3.15, "accuracy_after": 0.984}],
        "prompts": prompts,
    }  # fmt: skip
    return {"plural subject off": result, "everything": {**result, "after": -1.1, "to": "mean"}}


def _features(rng: random.Random, n: int, columns: Sequence[int | None], layers: int) -> list[Node]:
    def place() -> int | None:
        return rng.choice(columns) if columns != [None] else None

    token = [Node("embed", "token", p) for p in ((1, 5) if columns != [None] else (None,))]
    nodes = dict.fromkeys(token)
    while len(nodes) < n:
        site = f"{rng.choice(KINDS)}.{rng.randrange(layers)}"
        feature = "error" if rng.random() < 0.06 else rng.randrange(4096)
        nodes[Node(site, feature, place())] = None
    return list(nodes)


def _add(graph: nx.DiGraph, rng: random.Random, node: Node) -> None:
    effect = rng.choice([-1, -1, 1]) * rng.expovariate(4)
    token = graph.graph["columns"][node.position] if node.position is not None else None
    graph.add_node(
        node,
        kind=node.kind,
        token=token,
        activation=None if node.kind != "feature" else rng.expovariate(0.3),
        effect=effect,
        exact=effect * rng.gauss(1, 0.1) if rng.random() < 0.7 else None,
        label=rng.choice(LABELS) if node.kind == "feature" else "",
    )


def _connect(graph: nx.DiGraph, rng: random.Random, per_node: int, layers: int) -> None:
    order = {"embed": -1, "logit": layers * 3}
    order |= {f"{k}.{i}": i * 3 + j for i in range(layers) for j, k in enumerate(KINDS)}
    nodes = list(graph)
    for source in nodes:
        later = [t for t in nodes if order[t.site] > order[source.site]]
        for target in rng.sample(later, min(per_node, len(later))):
            graph.add_edge(source, target, weight=rng.choice([-1, 1]) * rng.expovariate(8))


def _card(rng: random.Random, vocabulary: list[str], examples: int, tokens: int) -> dict:
    def example() -> dict:
        peaks = (rng.expovariate(0.4) if rng.random() < 0.15 else 0.0 for _ in range(tokens))
        values = [round(peak, 4) for peak in peaks]
        return {"tokens": rng.choices(vocabulary, k=tokens), "values": values}

    def top() -> list:
        return [[rng.choice(vocabulary), round(rng.random(), 4)] for _ in range(10)]

    return {
        "promoted": top(),
        "suppressed": top(),
        "density": rng.random() * 0.02,
        "max_activation": 14.0,
        "examples": [example() for _ in range(examples)],
    }


def _rows(sizes: list[int]) -> dict:
    def row(reach: float, half: float) -> dict:
        curve = [reach * size / (size + half) for size in sizes]
        return {
            "faithfulness": curve,
            "completeness": [1 - 0.9 * value for value in curve],
            "completeness_low": [0.95 - 0.9 * value for value in curve],
            "completeness_high": [1.05 - 0.9 * value for value in curve],
            "low": [value - 0.06 for value in curve],
            "high": [value + 0.05 for value in curve],
        }

    without = row(0.62, 20) | {"completeness": [None] * len(sizes)}
    return {"circuit": row(1.02, 12), "circuit without errors": without,
            "random features": row(0.1, 150)}  # fmt: skip

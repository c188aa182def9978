"""What viewers show of each feature, beside the graph: its tokens, and texts that activate it."""

from collections.abc import Mapping
from typing import Any

import networkx as nx

from circuits.graph import ordered
from circuits.render.export.viewer_places import Places
from circuits.render.words import readable


def viewer_features(graph: nx.DiGraph, cards: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """What is known of each feature of the graph, by the number that the graph gives it."""
    places = Places.of(graph, 0)
    found = {}
    for node in ordered(graph):
        name = f"{node.site}/{node.feature}"
        if node.kind == "feature" and name in cards:
            found[places.number(node)] = _feature(places.number(node), name, cards[name])
    return found


def _feature(number: int, name: str, card: Mapping[str, Any]) -> dict[str, Any]:
    shown = [_example(example) for example in card.get("examples") or ()]
    density = card.get("density")
    return {
        "index": number,
        "transcoder_id": name,
        "examples_quantiles": [{"quantile_name": "Top activations", "examples": shown}],
        "top_logits": [str(token) for token, _ in card.get("promoted") or ()],
        "bottom_logits": [str(token) for token, _ in card.get("suppressed") or ()],
        "act_min": 0.0,
        "act_max": card.get("max_activation") or 1.0,
        **({} if density is None else {"activation_frequency": density}),
    }


def _example(example: Mapping[str, Any]) -> dict[str, Any]:
    values = [float(value) for value in example["values"]]
    peak = max(range(len(values)), key=values.__getitem__, default=0)
    return {
        "tokens": [readable(str(token)) for token in example["tokens"]],
        "tokens_acts_list": values,
        "train_token_ind": peak,
        "is_repeated_datapoint": False,
    }

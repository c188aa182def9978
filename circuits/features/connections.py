"""What a feature reads and what reads it, from weights alone, as one strict JSON record.

feature     SITE/INDEX, such as mlp_out.3/812; `label` as everywhere
reads       `site`; `tokens` whose embeddings it reads most, and `features` that it reads most of,
            by the direct path; `heads`: features that it reads most of through one attention head
writes      `site`; `promoted` and `suppressed` tokens; `features` that read it most
Every entry has a `weight`, whose sign says whether it excites or inhibits. `transcoders.weights`
says in what units.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.card import logit_tokens, promoted_labels
from circuits.features.neighbours import find_feature
from circuits.graph import rounded
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from hooked_qwen.tokens import token_strings
from saes.suite import OnDemand, Suite
from transcoders.weights import (
    READERS,
    Connection,
    Head,
    has_plain_heads,
    reading,
    strongest_inputs,
    strongest_outputs,
    tokens_read,
)

SCHEMA = "feature-connections/1"


def connections_of(
    model: TransformerBridge,
    suite: Suite,
    feature: str,
    k: int,
    *,
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The `k` strongest connections of each kind of `feature`, SITE/INDEX.

    `names` are what people call features, by SITE/INDEX.

    Raises `ValueError` when there is no such feature.
    """
    opened = OnDemand(suite, list(suite))
    place, index = find_feature(feature, opened)
    node = Node(opened.names[place], index)
    record: dict[str, Any] = {"schema": SCHEMA, "feature": f"{node.site}/{index}"}
    labels = _Labels(model, suite, names or {})
    record["label"] = labels.of([node])[node]
    read = suite.reads_of(node.site)[0]
    if read.kind in READERS:
        record["reads"] = {
            "site": str(read),
            "tokens": _tokens(model, suite, node, k),
            "features": labels.entries(strongest_inputs(model, suite, node, k), "source"),
            "heads": labels.entries(
                strongest_inputs(model, suite, node, k, through=heads_before(model, read)), "source"
            ),
        }
    written = logit_tokens(model, suite[node.site], [index]).fields(0, model.tokenizer)
    record["writes"] = {
        "site": str(suite.writes_of(node.site)[0]),
        **{word: pairs[:k] for word, pairs in written.items()},
        "features": labels.entries(strongest_outputs(model, suite, node, k), "target"),
    }
    return record


def heads_before(model: TransformerBridge, site: Site) -> list[Head]:
    """Every head of softmax attention that writes before `site`; none whose values are gated."""
    return [
        Head(layer, head)
        for layer in range(len(model.blocks))
        if Site("attn_out", layer) < site and has_plain_heads(model, layer)
        for head in range(model.cfg.n_heads)
    ]


def _tokens(model: TransformerBridge, suite: Suite, node: Node, k: int) -> list[dict[str, Any]]:
    dictionary = suite.fitting(model)[node.site]
    at = torch.tensor([int(node.feature)], device=dictionary.W_enc.device)
    weights, ids = tokens_read(model, reading(model, dictionary, at), k)
    words = token_strings(model.tokenizer, ids[0].tolist())
    return [
        {"token": word, "weight": rounded(weight)}
        for word, weight in zip(words, weights[0].tolist(), strict=True)
    ]


class _Labels:
    """What features are called: by people, else by what they promote."""

    def __init__(self, model: TransformerBridge, suite: Suite, names: Mapping[str, str]) -> None:
        self.model, self.suite, self.names = model, suite, names

    def of(self, nodes: Iterable[Node]) -> dict[Node, str]:
        made = promoted_labels(self.model, self.suite, nodes)
        return {node: self.names.get(f"{node.site}/{node.feature}", made[node]) for node in made}

    def entries(self, found: Sequence[Connection], end: str) -> list[dict[str, Any]]:
        """Connections by the feature at their other end."""
        nodes = [getattr(one, end) for one in found]
        labels = self.of(dict.fromkeys(nodes))
        return [
            {
                "feature": f"{node.site}/{node.feature}",
                "label": labels[node],
                "weight": rounded(one.weight),
                **(
                    {}
                    if one.through is None
                    else {"head": f"{one.through.layer}.{one.through.head}"}
                ),
            }
            for node, one in zip(nodes, found, strict=True)
        ]

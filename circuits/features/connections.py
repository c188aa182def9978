"""What a feature reads and what reads it, from weights alone, as one strict JSON record.

feature     SITE/INDEX, such as mlp_out.3/812; `label` as everywhere
reads       `site`; `tokens` whose embeddings it reads most, and `features` that it reads most of,
            by the direct path; `heads`: features that it reads most of through one attention head
writes      `site`; `promoted` and `suppressed` tokens; `features` that read it most
Every entry has a `weight`, whose sign says whether it excites or inhibits. `transcoders.weights`
says in what units. Where a text is given what it reads is ranked by what it adds there on average
(`transcoders.coactivation`), and entries have `mean` too, features also `together`, the share of
the feature's tokens at which they are on; `text` says how many tokens there were, and at how many
the feature was `on`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.features.card import logit_tokens
from circuits.features.named import Named, key_of
from circuits.features.neighbours import find_feature
from circuits.graph import rounded
from hooked_qwen.nodes import Node
from hooked_qwen.sites import Site
from hooked_qwen.tokens import token_strings
from saes.on_demand import OnDemand
from saes.suite import Suite
from transcoders.coactivation import CoActivation, coactivation
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
    blocks: Sequence[Int[Tensor, " pos"]] | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """The `k` strongest connections of each kind of `feature`, SITE/INDEX.

    `names` are what people call features, by SITE/INDEX. With `blocks` of a text, what the feature
    reads is corrected by what there is to be read where it is on.

    Raises `ValueError` when there is no such feature, and where the text never turns it on.
    """
    opened = OnDemand(suite, list(suite))
    place, index = find_feature(feature, opened)
    node = Node(opened.names[place], index)
    record: dict[str, Any] = {"schema": SCHEMA, "feature": f"{node.site}/{index}"}
    named = Named(model, suite, names or {})
    record["label"] = named.of([node])[node]
    read = suite.reads_of(node.site)[0]
    heads = heads_before(model, read)
    there = None
    if blocks is not None:
        there = coactivation(model, suite, node, blocks, heads, report=report)
        record["text"] = {"tokens": there.tokens, "on": there.on}
    if read.kind in READERS:
        by_way = [
            strongest_inputs(model, suite, node, k, through=through, read=there)
            for through in (None, heads)
        ]
        direct, through_heads = (_entries(named, found, "source") for found in by_way)
        record["reads"] = {
            "site": str(read),
            "tokens": _tokens(model, suite, node, k, there),
            "features": direct,
            "heads": through_heads,
        }
    written = logit_tokens(model, suite[node.site], [index]).fields(0, model.tokenizer)
    record["writes"] = {
        "site": str(suite.writes_of(node.site)[0]),
        **{word: pairs[:k] for word, pairs in written.items()},
        "features": _entries(named, strongest_outputs(model, suite, node, k), "target"),
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


def _tokens(
    model: TransformerBridge, suite: Suite, node: Node, k: int, there: CoActivation | None
) -> list[dict[str, Any]]:
    dictionary = suite.fitting(model)[node.site]
    at = torch.tensor([int(node.feature)], device=dictionary.W_enc.device)
    vector = reading(model, dictionary, at)
    factor = None if there is None else there.tokens_factor(model.cfg.d_vocab)
    found, ids = tokens_read(model, vector, k, factor=factor)
    words = token_strings(model.tokenizer, ids[0].tolist())
    if factor is None:
        pairs = zip(words, found[0].tolist(), strict=True)
        return [{"token": word, "weight": rounded(weight)} for word, weight in pairs]
    weights = found[0] / factor[ids[0]].to(found)
    return [
        {"token": word, "weight": rounded(weight), "mean": rounded(mean)}
        for word, weight, mean in zip(words, weights.tolist(), found[0].tolist(), strict=True)
        if mean
    ]


def _entries(named: Named, found: Sequence[Connection], end: str) -> list[dict[str, Any]]:
    """Connections by the feature at their other end."""
    nodes = [getattr(one, end) for one in found]
    labels = named.of(nodes)
    return [
        {
            "feature": key_of(node),
            "label": labels[node],
            "weight": rounded(one.weight),
            **({} if one.mean is None else {"mean": rounded(one.mean)}),
            **({} if one.together is None else {"together": rounded(one.together)}),
            **({} if one.through is None else {"head": f"{one.through.layer}.{one.through.head}"}),
        }
        for node, one in zip(nodes, found, strict=True)
    ]
